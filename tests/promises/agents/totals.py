"""An agent in any language: adds up the numeric columns of the CSV files of a pack, and says so with evidence."""

import csv
import hashlib
import html
import json
import pathlib
import sys

request = json.loads(pathlib.Path(sys.argv[1]).read_text())
output = pathlib.Path(request["output_dir"])


def tell(seq, stage, message):
    event = {"seq": seq, "time": "2026-01-01T00:00:00Z", "type": "progress", "stage": stage, "pct": 50.0, "msg": message}
    print(json.dumps(event), flush=True)


tell(1, "read", f"{len(request['inputs'])} files")
findings, rows_of_deck = [], []
for given in (one for one in request["inputs"] if one["format"] == "csv"):
    path = pathlib.Path(request["input_dir"]) / given["path"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == given["sha256"]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for column in rows[0] if rows else []:
        try:
            total = sum(float(row[column]) for row in rows)
        except ValueError:
            continue
        name = f"{given['file_id']}-{column}"
        rows_of_deck.append((given["name"], column, total))
        findings.append({
            "id": name, "rule_id": "total", "kind": "fact", "level": "note",
            "title": f"{column} of {given['name']} adds up to {total:g}",
            "statement": f"The {len(rows)} rows of {given['name']} hold {total:g} in {column}.",
            "metrics": [{"name": column, "value": total, "unit": "", "formula": f"sum({column})", "n": len(rows)}],
            "evidence": [{"file_id": given["file_id"], "locator": {"kind": "file"}, "query": f"sum({column})",
                          "sha256": given["sha256"]}],
            "confidence": 1.0, "fingerprint": name,
        })
tell(2, "deck", f"{len(findings)} findings")
cells = "".join(f"<tr><td>{html.escape(n)}<td>{html.escape(c)}<td>{t:g}" for n, c, t in rows_of_deck)
(output / "deck.html").write_text(f"<!doctype html><title>Totals</title><table>{cells}</table>")
(output / "findings.json").write_text(json.dumps({
    "schema": 1, "agent": "totals.py/1", "title": "Totals", "summary": f"{len(findings)} totals.",
    "findings": findings, "not_computed": [],
}))
