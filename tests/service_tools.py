"""What the tests of the service share: the app with a toy model, the service as a process, a PDF file."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from starlette.testclient import TestClient

from communique.model.service import create_app
from communique.model.settings import Settings

TEXT = "Ardenia urges Belmar to free the crew. It lifts the port fees. Both sides agreed to meet."


def client_for(toy_model: Path, **settings: object) -> TestClient:
    app = create_app(Settings(model=str(toy_model), threads=1, **settings))  # type: ignore[arg-type]
    return TestClient(app, raise_server_exceptions=False)


def start(
    toy_model: Path, code: str = "", workers: int = 1, **options: object
) -> tuple[subprocess.Popen[str], int]:
    """The service as a process on a free port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = f"port={port}, workers={workers}, threads=1, model={str(toy_model)!r}"
    given += "".join(f", {name}={value!r}" for name, value in options.items())
    run = f"from communique.serve import run; run({given})"
    env = {k: v for k, v in os.environ.items() if k != "COMMUNIQUE_TOKEN"}
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}\n{run}"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process, port
    process.kill()
    raise AssertionError(process.communicate()[1])


def pdf(*pages: list[str]) -> bytes:
    """A PDF with one line of Helvetica a string, written by hand: objects, table, trailer."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, lines in enumerate(pages):
        shown = " ".join(f"({line}) Tj 0 -14 Td" for line in lines)
        stream = f"BT /F1 11 Tf 50 800 Td {shown} ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * i} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer\n<< /Size {len(places) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + end.encode()
