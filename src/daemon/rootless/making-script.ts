import { insideRoot } from '#host/inside-namespaces.ts';

/**
 * Shell script that the holder runs as root of its new namespaces, with the user's state directory as `$1`. It replaces
 * `/run` by a tmpfs with the same contents, as far as they can be bound, in which podvm may make `/run/netns`, and mounts the state directory there: jailed
 * users cannot reach it in the user's home. Where the host's resolver listens on its loopback (systemd-resolved), the servers
 * behind it take its place. With a delegated cgroup, which is the root of its new cgroup namespace
 * (`$2` is then not empty), that takes the place of the host's. At last it sleeps.
 */
export const makingScript = `
new=$1/run
mkdir -p "$new"
mount -n -t tmpfs -o mode=0755,size=16m tmpfs "$new"
if [ -n "$2" ]; then # the kernel refuses to mount it over the host's directly
  mkdir "$new/cgroup"
  mount -n -t cgroup2 cgroup2 "$new/cgroup"
  mount -n --move "$new/cgroup" /sys/fs/cgroup
  rmdir "$new/cgroup"
fi
for each in /run/* /run/.[!.]*; do
  copy=$new/\${each#/run/}
  case $each in /run/netns | ${insideRoot} | /run/xtables.lock) continue ;; esac
  if [ -h "$each" ]; then cp -P -- "$each" "$copy"
  elif [ -d "$each" ]; then mkdir "$copy" && mount -n --rbind "$each" "$copy" || continue
  elif [ -e "$each" ]; then : >"$copy" && mount -n --bind "$each" "$copy" || continue
  fi
done
mkdir "$new/netns" "$new/podvm"
mount -n --bind "$1" "$new/podvm"
mount -n --move "$new" /run
servers=/run/systemd/resolve/resolv.conf
if [ -e "$servers" ] && ! grep '^nameserver' /etc/resolv.conf | grep -qv ' 127\\.'; then
  mount -n --bind "$servers" /etc/resolv.conf
fi
ip link set dev lo up
echo ready
exec sleep infinity >/dev/null 2>&1
`;
