"""A receiver of Fluentd's forward protocol, version 1, that takes nothing that is not exactly that.

Arguments: port, ledger, shared key (empty: none). Every event that is taken is a line of the ledger, on disk before
its chunk is acknowledged. A file LEDGER.mute makes it take the next chunk and close the connection without a word.
"""

import gzip
import hashlib
import json
import os
import socketserver
import sys

import msgpack

PORT, LEDGER, KEY = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def digest(*parts):
    return hashlib.sha512(b"".join(parts)).hexdigest()


def check(condition, what):
    if not condition:
        raise ValueError(what)


def event(entry):
    check(isinstance(entry, list) and len(entry) == 2, "an entry is a time and a record")
    time, record = entry
    check(isinstance(time, msgpack.ExtType) and time.code == 0 and len(time.data) == 8, "EventTime")
    check(isinstance(record, dict) and all(isinstance(key, str) for key in record), "a record is a map")
    seconds, nanos = int.from_bytes(time.data[:4], "big"), int.from_bytes(time.data[4:], "big")
    check(nanos < 10**9, "nanoseconds")
    return {"seconds": seconds, "nanos": nanos, "record": record}


class Receiver(socketserver.BaseRequestHandler):
    def say(self, value):
        self.request.sendall(msgpack.packb(value))

    def values(self):
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=True)
        while data := self.request.recv(65536):
            unpacker.feed(data)
            yield from unpacker

    def greet(self, values):
        nonce, auth = os.urandom(16), os.urandom(16)
        self.say(["HELO", {"nonce": nonce, "auth": auth, "keepalive": True}])
        word, name, salt, proof, user, password = next(values)
        check(word == "PING", "PING")
        right = proof == digest(salt, name.encode(), nonce, KEY.encode())
        right = right and password == digest(auth, user.encode(), b"pass") and user == "hub"
        answer = digest(salt, b"python", nonce, KEY.encode())
        self.say(["PONG", right, "" if right else "shared_key mismatch", "python", answer])
        return right

    def handle(self):
        values = self.values()
        if KEY and not self.greet(values):
            return
        for message in values:
            check(isinstance(message, list) and len(message) == 3, "PackedForward has three parts")
            tag, entries, options = message
            check(isinstance(tag, str) and isinstance(entries, bytes), "tag and entries")
            if options.get("compressed") == "gzip":
                entries = gzip.decompress(entries)
            unpacker = msgpack.Unpacker(raw=False, strict_map_key=True)
            unpacker.feed(entries)
            events = [event(entry) for entry in unpacker]
            check(unpacker.tell() == len(entries), "nothing is left over")
            check(options["size"] == len(events), "size")
            with open(LEDGER, "a", encoding="utf-8") as ledger:
                for one in events:
                    line = {"tag": tag, "chunk": options["chunk"], "gzip": "compressed" in options, **one}
                    ledger.write(json.dumps(line) + "\n")
                ledger.flush()
                os.fsync(ledger.fileno())
            try:
                os.remove(LEDGER + ".mute")
                return
            except FileNotFoundError:
                self.say({"ack": options["chunk"]})


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", PORT), Receiver).serve_forever()
