"""The TypeScript client: strict types, and a stream of a running server in Node."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from system_programs import NODE, TYPESCRIPT, find
from tests.live_server import live_server

PACKAGE = Path(__file__).parents[3] / "apps" / "typescript-client"
TEXT = "tiny-cpu"
SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1")
FIRST_WITH_SOCKETS = 22  # major version of Node; 20 has them behind a flag

PROGRAM = """
import { Client, RefusedError } from "./client.js";
const client = new Client(process.argv[2], { token: "secret" });
const session = await client.open({ preset: "tiny-cpu", prompt: "a red ball", seed: 4 });
const places = [];
for await (const frame of session) {
  if (new Uint8Array(frame.jpeg)[0] !== 0xff) throw new Error("no JPEG");
  places.push(frame.ptsMs);
  if (places.length === 3) session.change({ prompt: "a blue zeppelin" });
  if (places.length >= 6 && session.granted.unknown_words.length) break;
}
const [facts] = await client.sessions();
const snapshot = await client.snapshot(session.granted.session, true);
session.close();
const again = await client.open({ preset: "tiny-cpu", prompt: "a blue zeppelin" }, snapshot);
let next = -1;
for await (const frame of again) { next = frame.ptsMs; break; }
again.close();
let refusal;
try { await client.open({ preset: "dall-e", prompt: "a cat" }); } catch (error) { refusal = error; }
console.log(JSON.stringify({
  places, seed: session.granted.seed, name: facts.session === session.granted.session,
  goesOn: next > places.at(-1), refused: refusal instanceof RefusedError,
  message: refusal.message, retryable: refusal.retryable,
}));
process.exit(0);
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client as JavaScript; compiling it is the check of its types."""
    local = PACKAGE / "node_modules" / ".bin" / "tsc"
    compiler = str(local) if local.is_file() else find(TYPESCRIPT)
    if compiler is None:
        pytest.skip("no TypeScript: apt-get install node-typescript, or npm install there")
    folder = tmp_path_factory.mktemp("typescript")
    command = [compiler, "--project", str(PACKAGE), "--outDir", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def test_the_client_has_strict_types(compiled: Path):
    assert (compiled / "client.d.ts").is_file()


def test_a_stream_is_watched_changed_and_carried_on_in_node(compiled: Path):
    node = find(NODE)
    if node is None:
        pytest.skip("Node is not installed: apt-get install nodejs")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    major = int(re.sub(r"v(\d+).*", r"\1", version.stdout.strip()))
    if major < FIRST_WITH_SOCKETS - 2:
        pytest.skip(f"Node {major} has no WebSocket; 20 or newer has")
    flags = ["--experimental-websocket"] if major < FIRST_WITH_SOCKETS else []
    (compiled / "watch.js").write_text(PROGRAM)
    with live_server({TEXT: SMALL}, num_places=2, token="secret") as server:
        command = [node, *flags, str(compiled / "watch.js"), server.url]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    places = json.loads(run.stdout)["places"]
    assert places == sorted(set(places))  # a slow one misses some, and sees none twice
    assert all(place % 62.5 == 0 for place in places)
    assert '"seed":4,"name":true,"goesOn":true,"refused":true' in run.stdout
    assert "no preset 'dall-e'" in run.stdout
