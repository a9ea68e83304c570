#!/bin/sh
# Secrets of one installation: a certificate authority of its own, a certificate each for scheduler, workers and
# clients, and Prefect's auth string. Into ./certificates and ./.env beside this script, or the folder given; what is
# there already stays. Dask lets in whoever has a certificate of this authority: keep ca-key.pem off the machines.
#   deploy/secrets.sh            then deploy/README.md says where they go
# To renew (certificates last a year): remove *.pem but ca*.pem, run again, distribute, restart all parts.
set -eu
umask 077
folder=${1:-$(dirname "$0")}
certificates=$folder/certificates
days=365
mkdir -p "$certificates"
if [ ! -f "$certificates/ca-key.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=marstfn authority" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout "$certificates/ca-key.pem" -out "$certificates/ca.pem" 2>/dev/null
fi
extensions=$(mktemp)
trap 'rm -f "$extensions"' EXIT
# Python from 3.13 on takes no certificate without these
cat > "$extensions" <<'END'
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
END
for role in scheduler worker client; do
    [ ! -f "$certificates/$role.pem" ] || continue
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=marstfn $role" \
        -keyout "$certificates/$role-key.pem" -out "$certificates/$role.csr" 2>/dev/null
    openssl x509 -req -in "$certificates/$role.csr" -CA "$certificates/ca.pem" -CAkey "$certificates/ca-key.pem" \
        -CAcreateserial -days "$days" -extfile "$extensions" -out "$certificates/$role.pem" 2>/dev/null
    rm "$certificates/$role.csr"
done
if [ ! -f "$folder/.env" ]; then
    {
        echo "PREFECT_AUTH=marstfn:$(openssl rand -hex 24)"
        # files are owned by whoever ran this: the containers run as the same
        echo "OWNER=$(id -u):$(id -g)"
    } > "$folder/.env"
fi
echo "certificates in $certificates, Prefect's auth string in $folder/.env"
