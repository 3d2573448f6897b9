#!/bin/sh
# Records what a stock kube-apiserver leaves in etcd: record.sh KUBE_APISERVER > recorded.txt
#
# Lines of key, value in base64, and the object as that server serves it. Needs etcd, kubectl, curl, openssl and jq.
# What a server makes by itself at every start (its own roles, flow schemas and so on) is left out.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
etcd=http://127.0.0.1:32379
etcd --data-dir "$work/etcd" --listen-client-urls $etcd --advertise-client-urls $etcd --listen-peer-urls http://127.0.0.1:32380 2> "$work/etcd.log" &
etcd_pid=$!
openssl genrsa -out "$work/sa.key" 2048 2> /dev/null
echo 'secret,admin,admin,system:masters' > "$work/tokens.csv"
"$1" --etcd-servers=$etcd --secure-port=36443 --bind-address=127.0.0.1 --cert-dir="$work/certs" \
    --service-cluster-ip-range=10.96.0.0/16 --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$work/sa.key" --service-account-signing-key-file="$work/sa.key" \
    --token-auth-file="$work/tokens.csv" --authorization-mode=RBAC --disable-admission-plugins=ServiceAccount \
    2> "$work/api.log" &
api_pid=$!
trap 'kill $api_pid $etcd_pid; rm -rf "$work"' EXIT
k="kubectl --server https://127.0.0.1:36443 --token secret --insecure-skip-tls-verify --cache-dir $work/cache --kubeconfig /dev/null"
until $k get --raw /readyz > /dev/null 2>&1; do sleep 1; done
# The custom kind is served a moment after its definition.
until $k apply --server-side --field-manager=recorder -f "$here/objects.yaml" > "$work/applied" 2>&1; do sleep 1; done
# From /registry/ up to /registry0, over etcd's JSON gateway.
curl -sf $etcd/v3/kv/range -d '{"key": "L3JlZ2lzdHJ5Lw==", "range_end": "L3JlZ2lzdHJ5MA=="}' |
    jq -r '.kvs[] | (.key | @base64d) + " " + .value' |
    grep -E '^/registry/([^ ]*/)?(shop|n1|fast|low|pets\.example\.com|v1\.apps)(/[^ ]*)? ' > "$work/stored"
$k api-resources --verbs=list -o name > "$work/kinds"
while read -r key value; do
    name=${key##*/}
    namespace=
    case $key in */shop/*) namespace=shop ;; esac
    plural=$(echo "$key" | sed -e "s|/$name\$||" -e 's|/shop$||' -e 's|.*/||')
    case $plural in minions) plural=nodes ;; specs) plural=services ;; ingress) plural=ingresses ;; esac
    kind=$(grep -m 1 -E "^$plural(\.|\$)" "$work/kinds")
    object=$($k get "$kind" "$name" ${namespace:+-n $namespace} --show-managed-fields -o json | jq -c 'del(.metadata.resourceVersion)')
    printf '%s\t%s\t%s\n' "$key" "$value" "$object"
done < "$work/stored"
