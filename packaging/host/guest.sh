# Runs on the booted test system, as root. Writes /root/log; each test has a line "ok" or "FAIL".
exec >/root/log 2>&1
set -x
unit=smtp-dedup-relay

check() { # what, then a command
    what=$1
    shift
    if "$@"; then echo "ok    $what"; else echo "FAIL  $what"; fi
}
pid() { systemctl show -p MainPID --value $unit; }
restarts() { systemctl show -p NRestarts --value $unit; }
until_active() { # seconds
    for _ in $(seq "$1"); do
        systemctl is-active --quiet $unit && return
        sleep 1
    done
    return 1
}
arrived() { # how many mails
    for _ in $(seq 30); do
        [ "$(grep -c '^Subject: ' /var/mail/reader)" = "$1" ] && return
        sleep 1
    done
    return 1
}

ip link set lo up
postconf -e 'mydestination = localhost' 'inet_interfaces = loopback-only' 'in_flow_delay = 0'
systemctl restart postfix
useradd -m reader
check "the package installs, and the service starts" dpkg -i /root/smtp-dedup-relay_*.deb
check "the service is active" until_active 10
check "relay check finds no fault" relay check
check "the exposure by systemd-analyze is below 2" \
    sh -c "systemd-analyze security --threshold=20 --no-pager $unit >/dev/null"
sleep 11 # The state is reported every ten seconds.
check "systemctl status says what the relay does" sh -c "systemctl status $unit | grep 'Status: .*upstream up, store up'"

systemctl stop $unit
check "the socket unit holds the address" systemctl enable --now $unit.socket
systemctl start $unit
python3 /root/load.py &
load=$!
for _ in 1 2 3; do
    sleep 2.5
    systemctl restart $unit
done
check "three restarts under load refuse none of 400 mails" wait $load
check "each of the 400 mails arrives once" arrived 400

check "systemctl reload works" systemctl reload $unit
systemctl show -p ActiveState $unit
before=$(restarts)
kill -KILL "$(pid)"
sleep 4
check "it is started again after SIGKILL" until_active 10
check "systemd counts the restart" [ "$(restarts)" = $((before + 1)) ]
kill -STOP "$(pid)"
sleep 70
check "the watchdog ends a process that stands still, and starts it again" until_active 20
check "systemd counts the restart of the watchdog" [ "$(restarts)" = $((before + 2)) ]
python3 /root/load.py
check "a mail that was sent before is suppressed" arrived 400

echo 'listen = 1' >>/etc/smtp-dedup-relay/relay.toml
systemctl restart $unit
sleep 3
check "wrong settings end with status 78 and without restarts" \
    [ "$(systemctl show -p ExecMainStatus --value $unit) $(systemctl show -p SubState --value $unit)" = "78 failed" ]
check "purge works" dpkg --purge $unit
check "purge leaves no user, folder or unit" sh -c \
    "! getent passwd $unit && ! ls -d /etc/$unit /var/lib/$unit /lib/systemd/system/$unit* 2>/dev/null"
echo "ok    all tests have run"
