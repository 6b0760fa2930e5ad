#!/bin/busybox sh
# First process of the emulated board: loads the drivers, sets up the network, hands over to the system on the disk.
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in $(cat /modules/order); do
  insmod "/modules/$module"
done
until [ -b /dev/vda ]; do sleep 0.1; done
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
mount -t ext4 /dev/vda /root
mount --move /dev /root/dev
umount /proc
umount /sys
exec switch_root /root /sbin/init
