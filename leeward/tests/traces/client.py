"""Sends spans with OpenTelemetry's own SDK and prints their ids: client.py PROTOCOL ENDPOINT TRACES NAME"""

import json
import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Status, StatusCode

protocol, endpoint, traces, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
if protocol == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from grpc import Compression

    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=20, compression=Compression.Gzip)
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=endpoint + "/v1/traces", timeout=20)


class Told:
    """Passes on, and remembers what could not be sent."""

    failed = 0

    def export(self, spans):
        result = exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            Told.failed += len(spans)
        return result

    def shutdown(self):
        exporter.shutdown()

    def force_flush(self, timeout_millis=30000):
        return exporter.force_flush(timeout_millis)


# A pod that says it were another.
resource = Resource.create({"service.name": name, "k8s.pod.name": "somebody-else"})
provider = TracerProvider(resource=resource)
provider.add_span_processor(BatchSpanProcessor(Told(), max_queue_size=1 << 16, max_export_batch_size=64))
tracer = provider.get_tracer("test")
ids = []
for number in range(traces):
    with tracer.start_as_current_span("request", attributes={"number": number}) as outer:
        ids.append(format(outer.context.span_id, "016x"))
        with tracer.start_as_current_span("work") as inner:
            ids.append(format(inner.context.span_id, "016x"))
            if number % 10 == 0:
                inner.set_status(Status(StatusCode.ERROR, "made to fail"))
provider.shutdown()
print(json.dumps({"ids": ids, "failed": Told.failed}))
