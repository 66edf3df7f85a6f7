import type { TarSpec } from '#image/tar/tar-builder.ts';
import type { DebianFiles } from '../conformance/debian-files.ts';
import { busybox, file, image, named, nginx, type StandIn, webServer } from '../conformance/stand-ins.ts';

/** The images of containerd's own suite, by the fields of its list. */
export const suiteImages = {
  Alpine: 'ghcr.io/containerd/alpine:3.14.0',
  BusyBox: 'ghcr.io/containerd/busybox:1.36',
  Pause: 'registry.k8s.io/pause:3.10.2',
  ResourceConsumer: 'registry.k8s.io/e2e-test-images/resource-consumer:1.10',
  VolumeCopyUp: 'ghcr.io/containerd/volume-copy-up:2.2',
  VolumeOwnership: 'ghcr.io/containerd/volume-ownership:2.1',
  Nginx: 'ghcr.io/containerd/nginx:1.27.0',
} as const;

/** Those of the real image that a test looks for. */
const groups = 'root:x:0:\ndaemon:x:1:\nwheel:x:10:root\n';

/** Fills 100 MB of memory for 30 s, as the suite's only call of `stress` asks for. */
const stress = '#!/bin/sh\ndd if=/dev/zero bs=105M count=1 2>/dev/null | { sleep 30; cat >/dev/null; }\n';

/** The images that containerd's own suite pulls, with what its tests look for in them. */
export async function suiteStandIns(debian: DebianFiles): Promise<readonly StandIn[]> {
  const box = await busybox(debian);
  const alpine: readonly TarSpec[] = [
    file('etc/os-release', 'NAME="Alpine Linux"\n'), // a test looks for its name
    { name: 'bin/sh', type: 'symlink', target: '/bin/busybox' },
  ];
  const copied = ['test_dir/test_file', 'C:/weird_test_dir/weird_test_file', ':colon_prefixed/colon_prefixed_file'];
  const owned: TarSpec = { name: 'test_dir', type: 'directory', mode: 0o755, uid: 65_534, gid: 65_534 };
  const withVolumes = (...paths: readonly string[]) => ({
    Cmd: ['sh'],
    Volumes: Object.fromEntries(paths.map((path) => [path, {}])),
  });
  const pause = named(box, 'pause');
  return [
    { names: [suiteImages.Alpine], image: image([box, alpine], { Cmd: ['sh'] }) },
    { names: [suiteImages.BusyBox], image: image([box, [file('etc/group', groups)]], { Cmd: ['sh'] }) },
    { names: [suiteImages.Pause], image: { ...pause, layers: [...pause.layers, [file('pause', 'pause\n')]] } },
    {
      names: [suiteImages.ResourceConsumer],
      image: image([box, [file('bin/stress', stress, 0o755)]], { Cmd: ['sleep', 'infinity'] }),
    },
    {
      names: [suiteImages.VolumeCopyUp],
      image: image(
        [box, copied.map((name) => file(name, 'test_content\n'))],
        withVolumes('/test_dir', 'C:/weird_test_dir', '/:colon_prefixed'),
      ),
    },
    { names: [suiteImages.VolumeOwnership], image: image([box, [owned]], withVolumes('/test_dir')) },
    { names: [suiteImages.Nginx], image: webServer([box, await nginx(debian)], 80) },
  ];
}
