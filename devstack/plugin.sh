# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Variables and functions without a definition here are DevStack's.
# shellcheck disable=SC2154
# The plugin for DevStack: applies the patch set to the Nova that DevStack has
# checked out, gives this host namespaces, and configures Tempest. DevStack
# sources this file in each of its phases. See README.rst.

# What tells our stand-ins from the real tools.
PMEM_COPY_MARK='a stand-in of nova-pmem-copy'

# The names in PMEM_COPY_NAMESPACES, one a line.
function _pmem_copy_names {
    tr -d ' ' <<<"$PMEM_COPY_NAMESPACES" | tr ',' '\n' | tr '|' '\n' |
        sed 's/.*://'
}

# Run the patch tool; it has an environment of its own, since what it needs is
# nothing that the services should find.
function _pmem_copy_patch {
    local python=$PMEM_COPY_DATA/venv/bin/python
    if [[ ! -x $python ]]; then
        python3 -m venv "$PMEM_COPY_DATA/venv"
        "$python" -m pip install pyflakes
    fi
    (cd "$PMEM_COPY_DIR" && "$python" -m novapatch "$1" "$NOVA_DIR")
}

# The device of a namespace as ndctl calls it, if there is one of that name.
function _pmem_copy_device {
    sudo ndctl list --namespaces --idle | python3 -c '
import json, sys
found = json.loads(sys.stdin.read() or "[]")
for each in found if isinstance(found, list) else [found]:
    if each.get("name") == sys.argv[1]:
        print(each["dev"])' "$1"
}

function _pmem_copy_make_dax {
    local name
    for name in $(_pmem_copy_names); do
        if [[ -z $(_pmem_copy_device "$name") ]]; then
            # Written down first: better to destroy too little than to leave
            # one that nobody knows of.
            echo "$name" >>"$PMEM_COPY_DATA/made"
            sudo ndctl create-namespace --mode=devdax --align=2M \
                --size="${PMEM_COPY_SIZE}M" --name="$name"
        fi
    done
}

function _pmem_copy_destroy_dax {
    local name device
    while read -r name; do
        device=$(_pmem_copy_device "$name")
        if [[ -n $device ]]; then
            sudo ndctl destroy-namespace --force "$device"
        fi
    done <"$PMEM_COPY_DATA/made"
    rm "$PMEM_COPY_DATA/made"
}

# Whether a file is a stand-in that this plugin has installed.
function _pmem_copy_is_ours {
    grep -qs "$PMEM_COPY_MARK" "$1"
}

function _pmem_copy_make_files {
    local tool path name number=0 comma='' node
    for tool in ndctl daxio; do
        path=$(type -P "$tool" || true)
        if [[ -n $path ]] && ! _pmem_copy_is_ours "$path"; then
            die $LINENO "PMEM_COPY_BACKEND=file would hide the real $path"
        fi
    done
    # Root, privsep and the user of nova-compute all note their calls here.
    mkdir -p "$PMEM_COPY_DATA/faults"
    touch "$PMEM_COPY_DATA/calls"
    {
        echo '['
        for name in $(_pmem_copy_names); do
            node=/dev/dax0.$number
            # libvirt knows how to give a guest a file only if it is in /dev.
            sudo truncate --size="${PMEM_COPY_SIZE}M" "$node"
            sudo chmod 600 "$node"
            echo "$node" >>"$PMEM_COPY_DATA/nodes"
            printf '%s{"name": "%s", "listed": "%s", "path": "%s", ' \
                "$comma" "$name" "$name" "$node"
            printf '"size": %d, "align": 2097152, "enabled": true, ' \
                $((PMEM_COPY_SIZE * 1024 * 1024))
            printf '"uuid": "%s"}\n' "$(cat /proc/sys/kernel/random/uuid)"
            comma=', '
            number=$((number + 1))
        done
        echo ']'
    } >"$PMEM_COPY_DATA/namespaces.json"
    for tool in ndctl daxio; do
        # Python forgets whether SIGPIPE was ignored; the shell does not.
        sudo tee "/usr/local/bin/$tool" >/dev/null <<EOF
#!/bin/sh
# $PMEM_COPY_MARK
while read -r name value; do
    case \$name\$value in
        SigIgn:*[13579bdf]???) export PMEM_STAND_IN_SIGPIPE=ignored ;;
    esac
done < /proc/self/status
export PMEM_STAND_IN_DIR=$PMEM_COPY_DATA
exec python3 -B -E -S \\
    $PMEM_COPY_DIR/nova/tests/fixtures/pmem_tools/$tool "\$@"
EOF
        sudo chmod 755 "/usr/local/bin/$tool"
    done
    # Nova takes nothing but character devices; so its Python is told.
    _pmem_copy_site >"$PMEM_COPY_DATA/site"
    printf '%s\n' "$PMEM_COPY_DIR/nova/tests/fixtures/pmem_tools" \
        'import device_files' |
        sudo tee "$(<"$PMEM_COPY_DATA/site")/pmem-copy.pth" >/dev/null
}

# Where nova-compute, its helper for root and receivers find their modules.
function _pmem_copy_site {
    local python
    python=$(sed -n '1s/^#!//p' "$NOVA_BIN_DIR/nova-compute")
    "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

function _pmem_copy_remove_files {
    local tool node
    for tool in ndctl daxio; do
        if _pmem_copy_is_ours "/usr/local/bin/$tool"; then
            sudo rm "/usr/local/bin/$tool"
        fi
    done
    while read -r node; do
        # A real device may have come to that name since.
        if [[ -f $node ]]; then
            sudo rm "$node"
        fi
    done <"$PMEM_COPY_DATA/nodes"
    if [[ -e $PMEM_COPY_DATA/site ]]; then
        sudo rm -f "$(<"$PMEM_COPY_DATA/site")/pmem-copy.pth"
    fi
}

# Before anything is installed: what the host needs.
function pmem_copy_pre_install {
    mkdir -p "$PMEM_COPY_DATA"
    if is_service_enabled n-cpu && [[ $PMEM_COPY_BACKEND != file ]]; then
        if is_ubuntu; then
            install_package ndctl pmdk-tools
        else
            install_package ndctl daxio
        fi
    fi
}

# Nova is checked out and installed, and nothing of it runs yet.
function pmem_copy_install {
    if is_service_enabled nova; then
        _pmem_copy_patch apply
        # Once more, for the command that the patch set adds.
        setup_develop "$NOVA_DIR"
    fi
}

function pmem_copy_configure {
    if ! is_service_enabled n-cpu; then
        return
    fi
    case $PMEM_COPY_BACKEND in
        existing) ;;
        dax) _pmem_copy_make_dax ;;
        file) _pmem_copy_make_files ;;
        *) die $LINENO "PMEM_COPY_BACKEND is $PMEM_COPY_BACKEND" \
            "and may be existing, dax or file" ;;
    esac
    # nova-compute's own file is made from this one when it is started.
    iniset "$NOVA_CONF" libvirt pmem_namespaces "$PMEM_COPY_NAMESPACES"
}

function pmem_copy_configure_tempest {
    if is_service_enabled tempest; then
        iniset "$TEMPEST_CONFIG" pmem_copy labels "$PMEM_COPY_TEMPEST_LABEL"
    fi
}

# The checkout is Nova's own again, so that DevStack can update it.
function pmem_copy_unstack {
    if [[ -d $NOVA_DIR/.novapatch ]]; then
        _pmem_copy_patch undo
    fi
}

function pmem_copy_clean {
    pmem_copy_unstack
    if [[ -e $PMEM_COPY_DATA/made ]]; then
        _pmem_copy_destroy_dax
    fi
    if [[ -e $PMEM_COPY_DATA/nodes ]]; then
        _pmem_copy_remove_files
    fi
    sudo rm -rf "$PMEM_COPY_DATA"
}

case "$1 ${2:-}" in
    'stack pre-install') pmem_copy_pre_install ;;
    'stack install') pmem_copy_install ;;
    'stack post-config') pmem_copy_configure ;;
    'stack test-config') pmem_copy_configure_tempest ;;
    'unstack '*) pmem_copy_unstack ;;
    'clean '*) pmem_copy_clean ;;
esac
