#!/bin/sh
# On the host's root in the guest: what a machine has after it has booted, the command, and off.
# Beside this file lie: settings (MODULES, VERSION), command, and what the command leaves: output, status.
exchange=/run/host
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
. "$exchange/settings"

mkdir -p /dev/pts /dev/shm /scratch
mount -t devpts devpts /dev/pts
mount -t tmpfs memory /dev/shm
for link in fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    ln -sf "${link#*:}" "/dev/${link%%:*}"
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/lib/modules/$VERSION"
mount --bind "$MODULES" "/lib/modules/$VERSION"
# File systems and quota formats are loaded on demand; these are not.
modprobe -a loop fuse
busybox ip link set lo up
mount -t ext4 /dev/vda /scratch && mkdir -m 1777 /scratch/tmp

bash "$exchange/command" </dev/null >"$exchange/output" 2>&1
echo $? >"$exchange/status.new"
mv "$exchange/status.new" "$exchange/status"
umount /scratch
busybox reboot -f
