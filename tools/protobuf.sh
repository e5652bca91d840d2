#!/bin/sh
# Regenerates src/p2pcore/pb/*_pb2.py and .pyi from the .proto files beside them.
#
# The compiler is old on purpose: generated code runs on a runtime of its own age and every newer
# one, and protoc 25 predates the runtime check, so that protobuf >= 5.26 accepts it.
set -eu

cd "$(dirname "$0")/.."
venv="${P2PCORE_PROTOBUF_VENV:-build/protobuf-venv}"
if [ ! -x "$venv/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet 'grpcio-tools==1.62.3' 'protobuf<5' 'setuptools<80'
fi
python="$(cd "$venv/bin" && pwd)/python"
cd src
rm -f p2pcore/pb/*_pb2.py p2pcore/pb/*_pb2.pyi
"$python" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. p2pcore/pb/*.proto
