#!/bin/sh
# Writes the secrets of compose.yaml into .env, readable by its owner alone. What is there already stays.
set -eu
cd "$(dirname "$0")/.."
umask 077
touch .env

secret() { # name, value
    grep -q "^$1=" .env || printf '%s=%s\n' "$1" "$2" >>.env
}

secret RAY_AUTH_TOKEN "$(openssl rand -hex 32)"
secret DATABASE_PASSWORD "$(openssl rand -hex 32)"
secret REDIS_PASSWORD "$(openssl rand -hex 32)"
secret GIGAROUTER_KEY_PEPPER "$(openssl rand -hex 32)"
secret GIGAROUTER_BOOTSTRAP_KEY "gr-$(openssl rand -base64 32 | tr '+/' '-_' | tr -d '=')"
