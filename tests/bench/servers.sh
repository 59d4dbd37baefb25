# Servers on loopback for the benchmark and the soak, each able to federate: their configuration and the command that starts
# them. Sourced, not run. Needs REPO, SECRET and HEARTH (the binary); everything is written below the folder that is named.

free_ports() { # COUNT; all different
  python3 - "$1" <<'PY'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))
PY
}

# An authority that only these servers know, and a certificate of it that all of them share. What went wrong is in DIR/log.
certificates() { # DIR: writes ca.pem, server.pem, server.key
  mkdir -p "$1"
  [ ! -f "$1/server.pem" ] || return 0
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  openssl req -x509 "${key[@]}" -days 3650 -subj "/CN=Authority of a benchmark" \
    -keyout "$1/ca.key" -out "$1/ca.pem" 2>>"$1/log" || return
  openssl req "${key[@]}" -subj "/CN=localhost" -keyout "$1/server.key" -out "$1/server.csr" 2>>"$1/log" || return
  printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >"$1/extensions"
  openssl x509 -req -in "$1/server.csr" -CA "$1/ca.pem" -CAkey "$1/ca.key" -CAcreateserial -days 3650 \
    -extfile "$1/extensions" -out "$1/server.pem" 2>>"$1/log"
}

# Durable and as installed, but for the limits, which a load from one address would run into. START is how to run it.
hearth_at() { # DIR CLIENT_PORT FEDERATION_PORT [PORT that others reach it by]
  local dir=$1 client=$2 federation=$3 reached=${4:-$3} tls=$OUT/tls
  mkdir -p "$dir"
  certificates "$tls" || return
  cat >"$dir/hearth.toml" <<TOML
server_name = "127.0.0.1:$reached"
data_dir = "$dir/data"

[[listener]]
bind = "127.0.0.1:$client"
serve = ["client"]

[[listener]]
bind = "127.0.0.1:$federation"
serve = ["federation"]
tls = { certificate = "$tls/server.pem", key = "$tls/server.key" }

[federation]
ca_file = "$tls/ca.pem"
allow_private_networks = true
notaries = []

[registration]
mode = "open"
shared_secret = "$SECRET"

[limits]
enabled = false
TOML
  START="'$HEARTH' serve --config '$dir/hearth.toml' >>'$dir/log' 2>&1"
}

# Synapse the same. POSTGRES as tests/peers/synapse.sh has it.
synapse_at() { # DIR CLIENT_PORT FEDERATION_PORT
  local dir=$1 client=$2 federation=$3 tls=$OUT/tls settings
  mkdir -p "$dir"
  certificates "$tls" || return
  # Its two lists of forbidden addresses are spelled as they always were: under their newer names they are passed over, and
  # every peer on this machine is refused.
  cat >"$dir/federation.yaml" <<YAML
listeners:
  - {port: $client, bind_addresses: ["127.0.0.1"], type: http, tls: false, x_forwarded: false, resources: [{names: [client]}]}
  - {port: $federation, bind_addresses: ["127.0.0.1"], type: http, tls: true, resources: [{names: [federation]}]}
tls_certificate_path: "$tls/server.pem"
tls_private_key_path: "$tls/server.key"
federation_custom_ca_list: ["$tls/ca.pem"]
ip_range_blacklist: []
federation_ip_range_blacklist: []
federation_rr_transactions_per_room_per_second: 10000
rc_federation: {window_size: 1000, sleep_limit: 100000, sleep_delay: 0, reject_limit: 100000, concurrent: 100}
YAML
  SERVER_NAME=localhost:$federation SECRET=$SECRET POSTGRES=${POSTGRES:-} "$REPO/tests/peers/synapse.sh" prepare "$client" "$dir" ||
    return
  START="env 'EXTRA=$dir/federation.yaml' '$REPO/tests/peers/synapse.sh' run $client '$dir' >>'$dir/stdout' 2>&1"
}
