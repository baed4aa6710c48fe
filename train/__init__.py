"""From annotations and public data to a model that ships."""
