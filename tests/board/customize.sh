# Runs on this machine for the board's new root file system, $1. PUBLIC_KEY and BOARD_USER are set.
set -eu
cd "$1"

# The kernel is unpacked, not installed: its installation would make an initrd under emulation, for minutes.
mkdir kernel
cd kernel
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
kernel=$(apt-cache depends linux-image-arm64 | sed -n 's/.*Depends: //p' | head -n 1)
apt-get -qq download "$kernel" busybox-static
for package in *.deb; do
  dpkg-deb -x "$package" .
done
rm -- *.deb
cd ..

# "*" is a password that nothing matches, but no locked account: keys are let in.
chroot . useradd --create-home --shell /bin/bash "$BOARD_USER"
chroot . usermod --password '*' "$BOARD_USER"
for home in root "home/$BOARD_USER"; do
  mkdir -p -m 700 "$home/.ssh"
  echo "$PUBLIC_KEY" > "$home/.ssh/authorized_keys"
done
chroot . chown -R "$BOARD_USER": "/home/$BOARD_USER"

echo emulated-board > etc/hostname
echo '127.0.0.1 localhost emulated-board' > etc/hosts
printf 'UseDNS no\nPasswordAuthentication no\n' > etc/ssh/sshd_config.d/board.conf
# What nobody needs there, and would take seconds of every boot.
chroot . systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer \
  systemd-timesyncd.service getty@tty1.service serial-getty@ttyAMA0.service
# The user's own services run from boot on.
mkdir -p var/lib/systemd/linger
touch "var/lib/systemd/linger/$BOARD_USER"
rm -rf usr/share/doc usr/share/man usr/share/locale
