#!/usr/bin/env bash
# Checks Dockerfile, docker-compose.yml and deploy/ without Docker; see check_containers.py for what it looks at.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/packages.sh
. scripts/tools.sh

python_tools_install
exec "$TOOLS_DIR/python/bin/python" -B scripts/check_containers.py "$TARGET_DIR"
