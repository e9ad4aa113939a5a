#!/bin/busybox sh
# First process of the guest: the host's root, read-only, under a file system in memory with copies of what is
# read most; then stage2.sh on it.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /mod/*.ko; do
    insmod "$module" || echo "init: $module cannot be loaded"
done

give_up() { echo "init: $1"; reboot -f; }

shared=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,$shared,cache=loose" hostroot /ro || give_up "the host's root is not there"
mount -t tmpfs -o mode=755 memory /rw
mkdir /rw/upper /rw/work
tar -x -f /dev/vdb -C /rw/upper || give_up "the copies cannot be unpacked"
mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work root /newroot || give_up "no overlay"
for name in proc sys dev run; do
    mkdir -p "/newroot/$name"
done
for name in proc sys dev; do
    mount --move "/$name" "/newroot/$name"
done
mount -t tmpfs -o mode=755 run /newroot/run
mkdir /newroot/run/host
mount -t 9p -o "$shared,cache=none" exchange /newroot/run/host || give_up "no place to exchange files"
exec switch_root /newroot /bin/sh /run/host/stage2.sh
