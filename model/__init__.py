"""What a stance is, and how a sentence gets one. No torch at run time."""
