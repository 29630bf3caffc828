#!/usr/bin/env bash
# The job `prepare` of compose.yaml: funds the coordinator's account on the development chain, makes the coordinator's
# folder and one for each organisation, and admits them. What it has done it does not do again.
set -euo pipefail
: "${FEDERATION_FILE:=/federation.toml}" "${FEDERATION:=/etc/foedus}" "${ORGANISATIONS:=/organisations}" "${DATA:=/samples}"
: "${CHAIN:=http://chain:8545}" "${METRICS:=0.0.0.0:9465}"

[ -e "$FEDERATION/own.key" ] || foedus keys new "$FEDERATION/own.key" --json > "$FEDERATION/own.json"
python - "$CHAIN" "$FEDERATION/own.json" <<'END'
import json, sys, urllib.request

account = json.loads(open(sys.argv[2]).read())["address"]
asked = {"jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance", "params": [account, hex(10**21)]}
request = urllib.request.Request(sys.argv[1], json.dumps(asked).encode(), {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request))
if "error" in answer:
    sys.exit(f"expected anvil to fund {account}, got {answer['error']}")
END
foedus deploy init "$FEDERATION_FILE" --out "$FEDERATION"
for kit in "$FEDERATION"/kits/*.json; do
    name=$(basename "$kit" .json)
    [ -e "$ORGANISATIONS/$name/request.json" ] ||
        foedus join "$kit" --out "$ORGANISATIONS/$name" --data "$DATA" --metrics "$METRICS"
done
foedus deploy admit "$ORGANISATIONS"/*/request.json --federation "$FEDERATION"
