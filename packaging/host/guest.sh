# Runs on the booted test system, as root. Writes /root/log; each test has a line "ok" or "FAIL".
exec >/root/log 2>&1
set -x
trap 'journalctl -b --no-pager >/root/journal' EXIT
unit=smtp-dedup-relay
second=$unit@2
etc=/etc/$unit
older=/root/older.deb
newer=/root/newer.deb

check() { # what, then a command
    what=$1
    shift
    if "$@"; then echo "ok    $what"; else echo "FAIL  $what"; fi
}
property() { # name, unit
    systemctl show -p "$1" --value "${2:-$unit}"
}
wait_for() { # seconds, then a command
    seconds=$1
    shift
    for _ in $(seq "$seconds"); do
        "$@" && return
        sleep 1
    done
    return 1
}
active() { systemctl is-active --quiet "$@"; }
arrived() { # name, number of mails
    [ "$(grep -c "^Subject: $1 " /var/mail/reader)" = "$2" ]
}
load() { # name, mails, rate, seconds that the slowest may take
    python3 /root/load.py "$@"
}
metric() { # host, text at the beginning of a line
    python3 -c 'import sys, urllib.request as r; print(r.urlopen(f"http://{sys.argv[1]}:9625/metrics").read().decode())' "$1" |
        grep "^$2" | grep -o '[^ ]*$'
}
exposure_is_low() { # unit
    systemd-analyze security --threshold=12 --no-pager "$1" >/root/exposure
    status=$?
    tail -n 1 /root/exposure
    return $status
}
says_nothing() { [ -z "$("$@" 2>&1 | tee -a /dev/stderr)" ]; }
suppressed() { relay suppressed | grep -c ' suppressed '; }
has_restarted() { # unit, number of restarts before
    [ "$(property NRestarts "$1")" -gt "$2" ] && active "$1"
}

# Control groups of version 1 are mounted read-only. systemd sets weights only where it can write to both of these.
if [ -d /sys/fs/cgroup/cpu ]; then
    mount -o remount,bind,rw /sys/fs/cgroup/cpu
    mount -o remount,bind,rw /sys/fs/cgroup/cpuacct
    systemctl daemon-reexec
fi
ip link set lo up
postconf -e 'mydestination = localhost' 'inet_interfaces = loopback-only' 'in_flow_delay = 0'
systemctl restart postfix
useradd -m reader

echo "# installation"
check "the package installs" dpkg -i $older
# Other work on this machine may hold up everything.
echo 'RELAY_STORE__TIMEOUT=20s' >>$etc/environment
systemctl restart $unit
check "the service starts" wait_for 20 active $unit
check "relay check finds no fault" relay check
check "systemd-analyze verify finds no fault in the units" says_nothing systemd-analyze verify $unit.service $second.service $unit.socket $unit-tls.socket
check "the exposure of the service is 1.2 at most" exposure_is_low $unit.service
check "systemctl status says what the relay does" wait_for 15 sh -c "systemctl status $unit | grep 'Status: .*upstream up, store up'"
check "other users may enter the folder of the sockets, and nothing else" \
    [ "$(stat -c '%a %U' /run/$unit) $(stat -c '%a %U' /var/lib/$unit)" = "755 $unit 700 $unit" ]

echo "# one process"
systemctl stop $unit
check "the socket unit holds the address" systemctl enable --now $unit.socket
systemctl start $unit
load one 400 40 30 &
load=$!
for _ in 1 2 3; do
    sleep 2.5
    systemctl restart $unit
done
check "three restarts under load refuse none of 400 mails" wait $load
check "each of the 400 mails arrives once" wait_for 30 arrived one 400

echo "# two processes"
check "a second process starts beside the first" systemctl enable --now $second
check "the exposure of the second process is 1.2 at most" exposure_is_low $second.service
load two 400 40 6 &
load=$!
for each in $unit $second $unit $second; do
    sleep 2
    systemctl restart $each
done
check "restarted in turn, two processes answer each of 400 mails within six seconds" wait $load
check "each of these mails arrives once" wait_for 30 arrived two 400
load three 200 40 30
check "each process has taken mail, and has its own address for metrics" \
    [ "$(metric 127.0.0.1 'smtp_dedup_messages_total{reply="2xx"}' | cut -d . -f 1)" -gt 0 -a \
    "$(metric 127.0.0.2 'smtp_dedup_messages_total{reply="2xx"}' | cut -d . -f 1)" -gt 0 ]
load three 200 40 30
check "what one process has sent, both suppress" wait_for 30 arrived three 200

echo "# reload"
load reload 200 40 10 &
load=$!
for window in 40m 41m 0; do
    sleep 1
    printf '[dedup]\nwindow = "%s"\n' $window >$etc/relay.toml
    systemctl reload $unit $second || echo "FAIL  systemctl reload"
done
check "three reloads under load refuse none of 200 mails" wait $load
check "each of these mails arrives once" wait_for 30 arrived reload 200
load reload 1 40 10
check "the reloaded window is in force" wait_for 30 arrived reload 201
echo 'nonsense = 1' >>$etc/relay.toml
systemctl reload $unit
check "a bad file leaves the old settings in force, and systemctl status says so" \
    wait_for 20 sh -c "systemctl status $unit | grep 'Status: .*reload failed: .*nonsense'"
load reload 1 40 10
check "mail still flows" wait_for 30 arrived reload 202
sed -i '/nonsense/d' $etc/relay.toml
systemctl reload $unit
check "a good file ends that" wait_for 20 sh -c "! systemctl status $unit | grep 'reload failed'"

echo "# commands"
check "relay status shows both processes" sh -c "relay status && relay status --set admin.socket=/run/$unit-2/admin.sock"
usermod --append --groups $unit reader
check "the group of the relay may use its socket" setpriv --reuid=reader --regid=reader --init-groups relay status
check "other users may not" sh -c "! setpriv --reuid=nobody --regid=nogroup --clear-groups relay status"

echo "# upgrade and rollback"
printf '[dedup]\nwindow = "50m"\n' >$etc/relay.toml
echo 'RELAY_LOG__LEVEL=debug' >>$etc/environment
systemctl restart $unit $second
load kept 1 40 10
before=$(suppressed)
upgrade() { # name, package
    load "$1" 400 40 10 &
    load=$!
    dpkg -i "$2" || echo "FAIL  dpkg -i $2"
    wait $load
}
kept() { # number of the repeats of the one mail that must have been suppressed
    load kept 1 40 10
    [ "$(suppressed)" = $((before + $1)) ] && relay config | grep -q '^window = "50m"' &&
        grep -q '^RELAY_LOG__LEVEL=debug' $etc/environment && arrived kept 1
}
check "an upgrade under load refuses none of 400 mails" upgrade upgrade $newer
check "the upgrade has restarted both processes" \
    sh -c "systemctl show -p ActiveEnterTimestampMonotonic --value $unit $second | awk '\$1 && \$1 < $(($(cut -d . -f 1 /proc/uptime) - 60))000000 { exit 1 }'"
check "the upgrade keeps settings, passwords and state" kept 1
check "a rollback under load refuses none of 400 mails" upgrade rollback $older
check "the rollback keeps settings, passwords and state" kept 2
check "the upgrade can be repeated" upgrade again $newer
check "the socket unit and both processes are as before" active $unit $second $unit.socket
check "each mail of these upgrades arrives once" \
    wait_for 60 sh -c "[ \$(grep -c -E '^Subject: (upgrade|rollback|again) ' /var/mail/reader) = 1200 ]"

echo "# credentials"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=by-credential \
    -keyout $etc/key.pem -out $etc/chain.pem
echo secret-of-redis >$etc/store-password
chmod 600 $etc/key.pem $etc/store-password
redis-server --requirepass secret-of-redis --daemonize yes --save '' --dir /tmp
for each in $unit.service $unit@.service; do
    mkdir -p /etc/systemd/system/$each.d
    cat >/etc/systemd/system/$each.d/credentials.conf <<END
[Service]
LoadCredential=store-password:$etc/store-password
LoadCredential=tls-key:$etc/key.pem
Environment=RELAY_STORE__URL=redis://127.0.0.1
Environment=RELAY_STORE__PASSWORD_FILE=%d/store-password
Environment=RELAY_TLS__CERTIFICATE=$etc/chain.pem
Environment=RELAY_TLS__KEY=%d/tls-key
END
done
systemctl daemon-reload
check "the service starts with credentials" systemctl restart $unit $second
check "the relay's user cannot read the files themselves" sh -c "! setpriv --reuid=$unit --regid=$unit --clear-groups cat $etc/key.pem"
check "the store takes the password of the credential" \
    [ "$(metric 127.0.0.1 smtp_dedup_store_up) $(metric 127.0.0.2 smtp_dedup_store_up)" = "1.0 1.0" ]
shows_certificate() {
    echo QUIT | openssl s_client -connect 127.0.0.1:2525 -starttls smtp -brief 2>&1 | grep by-credential
}
check "clients see the certificate whose key is a credential" shows_certificate
load credential 20 40 10
load credential 20 40 10
check "both processes share the Redis server" wait_for 30 arrived credential 20
mv $etc/store-password /root
systemctl restart $unit
check "without the file of a credential systemd does not start the service, and says so" \
    sh -c "systemctl status $unit | grep -i credential"
mv /root/store-password $etc
check "it starts by itself once the file is there" wait_for 20 active $unit
rm -r /etc/systemd/system/$unit.service.d /etc/systemd/system/$unit@.service.d
redis-cli -a secret-of-redis shutdown nosave
systemctl daemon-reload
systemctl restart $unit $second

echo "# beside busy neighbours"
# Repeats cost the relay alone. 16 services burn what they can. The client has more weight than all of them.
systemctl stop $second
load weight 100 40 30
repeats() { # weight of the relay, mails per second, seconds that the slowest may take
    systemctl set-property --runtime $unit.service CPUWeight="$1" IOWeight="$1"
    systemd-run --quiet --wait --pipe -p CPUWeight=10000 python3 /root/load.py weight 100 "$2" "$3"
}
median() { # weight of the relay; of 100 repeats at once, in seconds
    repeats "$1" 1000 100 | sed 's/.*median \([0-9.]*\).*/\1/'
}
if grep -q cpu /sys/fs/cgroup/cgroup.controllers || [ -d /sys/fs/cgroup/cpu/system.slice/$unit.service ]; then
    idle=$(median 1000)
    for each in $(seq 16); do
        systemd-run --quiet --unit "burner-$each" sh -c 'while :; do :; done'
    done
    sleep 2
    without="$(median 100) $(median 100)"
    with="$(median 1000) $(median 1000)"
    check "beside 16 busy services, each of ten mails a second is answered within three seconds" repeats 1000 10 3
    systemctl stop 'burner-*'
    echo "figures of 100 mails at once, medians in seconds: $idle alone; with neighbours $without (CPUWeight=100), $with (CPUWeight=1000)"
    check "the weight in the unit makes it faster there" awk "BEGIN { split(\"$without $with\", s, \" \"); exit s[1] + s[2] <= s[3] + s[4] }"
else
    echo "not run: weights, because this machine gives the test system no CPU controller"
fi
systemctl start $second

echo "# what ends it"
count=$(property NRestarts)
kill -TERM "$(property MainPID)"
check "it is started again after SIGTERM from outside" wait_for 20 has_restarted $unit "$count"
count=$(property NRestarts)
kill -KILL "$(property MainPID)"
check "it is started again after SIGKILL" wait_for 20 has_restarted $unit "$count"
count=$(property NRestarts)
kill -STOP "$(property MainPID)"
load stopped 20 40 15
check "meanwhile the other process serves" wait_for 30 arrived stopped 20
check "the watchdog ends a process that stands still, and it is started again" wait_for 100 has_restarted $unit "$count"
load one 400 40 10
check "a mail that was sent before is suppressed" arrived one 400
check "systemctl stop stops it" sh -c "systemctl stop $unit.socket $unit $second && sleep 3 && ! systemctl is-active $unit"
systemctl start $unit.socket $unit $second

echo 'listen = 1' >>$etc/relay.toml
systemctl restart $unit
sleep 3
check "wrong settings end with status 78 and without restarts" [ "$(property ExecMainStatus) $(property SubState)" = "78 failed" ]
systemctl stop $second
load waiting 1 40 40 &
load=$!
sleep 5
starts=$(journalctl -u $unit --since -5s | grep -c 'dedup.listen')
echo "figures: with wrong settings and a waiting client the service was started $starts times in 5 s"
sed -i '/^listen = 1/d' $etc/relay.toml
check "a client that waits at the socket meanwhile is served once the settings are right" wait $load

echo "# end"
check "purge works" dpkg --purge $unit
left=$(ls -d $etc /var/lib/$unit /run/$unit* /*/systemd/system/$unit* /etc/systemd/system/*/$unit* 2>/dev/null)
echo "left behind: $left"
check "purge leaves no user, folder, process or unit" sh -c "! getent passwd $unit && ! pgrep -x relay && [ -z '$left' ]"
echo "ok    all tests have run"
