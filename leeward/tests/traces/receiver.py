"""Takes OTLP over HTTP, decodes it with OpenTelemetry's own messages, writes a line per span: receiver.py PORT FILE"""

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

out = open(sys.argv[2], "a", buffering=1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        for of in request.resource_spans:
            keys = [pair.key for pair in of.resource.attributes]
            assert len(keys) == len(set(keys)), keys
            resource = {pair.key: pair.value.string_value for pair in of.resource.attributes}
            for scope in of.scope_spans:
                for span in scope.spans:
                    out.write(json.dumps({"id": span.span_id.hex(), "resource": resource}) + "\n")
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
