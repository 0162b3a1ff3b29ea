#!/bin/sh
# Makes the environment: sh deploy/install.sh VENV
# Safe to repeat. Says what it does, and what is missing when it cannot go on.
set -eu
venv=$1
python=${PYTHON:-python3}
# The CPU build of torch is not on the usual index. A machine that has it elsewhere (a mirror,
# PIP_FIND_LINKS) never needs this one.
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

command -v "$python" >/dev/null || die "no $python; install Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$("$python" --version) is too old; Python 3.11 or newer is needed (make PYTHON=python3.12)"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    die "this Python has no venv; on Debian: apt-get install -y python3-venv"
command -v cc >/dev/null || command -v gcc >/dev/null ||
    die "no C compiler; on Debian: apt-get install -y gcc"
# Only guards in Python need it; whoever has none can do without.
command -v bwrap >/dev/null || {
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null &&
        apt-get install -y -q bubblewrap >/dev/null 2>&1
} || say "no bubblewrap, which guards in Python need; on Debian: apt-get install -y bubblewrap"
free_kb=$(df -Pk . | awk 'NR == 2 {print $4}')
[ "$free_kb" -gt 6000000 ] || die "the environment takes 4 GB and $((free_kb / 1000000)) GB are free"

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

say "packages into $venv, about 4 GB; a few minutes the first time"
log=$venv/install.log
# The lock is complete, so nothing is resolved and nothing it leaves out comes in.
if pip install -q --no-deps -r requirements/cpu.lock >"$log" 2>&1; then
    say "done, without a further index"
elif grep -q 'torch==' "$log"; then
    say "torch's CPU build was not found; trying again with $torch_index"
    pip install -q --no-deps --extra-index-url "$torch_index" -r requirements/cpu.lock ||
        die "packages could not be installed; see above"
else
    cat "$log" >&2
    die "packages could not be installed; see above"
fi
pip install -q --no-deps --no-build-isolation -e .

# Left from another installation, these three break transformers on a CPU.
pip uninstall -q -y torchvision torchaudio torchcodec >/dev/null 2>&1 || true
"$venv/bin/python" -W ignore -c 'from transformers import Qwen3ForCausalLM' ||
    die "transformers does not import; \`$venv/bin/ratchet doctor\` says what clashes"
say "ready; \`$venv/bin/ratchet doctor\` looks at the rest of this machine"
