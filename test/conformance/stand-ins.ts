import { PodvmError } from '#base/errors.ts';
import type { TarSpec } from '#image/tar/tar-builder.ts';
import type { ImageSpec } from '../images/layout-writer.ts';
import { type DebianFiles, withParents } from './debian-files.ts';

/** An image that stands in for one that critest names. */
export interface StandIn {
  /** Whole names, with the registry's host: all of them are one image. */
  readonly names: readonly string[];
  readonly image: ImageSpec;
}

const e2e = 'registry.k8s.io/e2e-test-images';
const staging = 'gcr.io/k8s-staging-cri-tools';
const benchmarks = 'public.ecr.aws/docker/library';

/** The images that critest of `cri-tools.ts` pulls, except the one named by a digest, which cannot be rebuilt. */
export async function standIns(debian: DebianFiles): Promise<readonly StandIn[]> {
  const box = await busybox(debian);
  const web = await nginx(debian);
  const users = ['uid:1002', 'username:www-data', 'uid-group:1003:1004', 'username-group:www-data:1004'];
  const group = [
    file('etc/passwd', `${passwd}default-user:x:1000:1000::/home:/bin/sh\n`),
    file('etc/group', `${groups}group-defined-in-image:x:50000:default-user\n`),
  ];
  return [
    { names: [`${e2e}/busybox:1.29-2`], image: image([box], { Cmd: ['sh'] }) },
    { names: [`${e2e}/nginx:1.14-2`], image: webServer([box, web], 80) },
    { names: [`${staging}/hostnet-nginx-amd64:latest`], image: webServer([box, web], 12_003) },
    { names: [`${e2e}/httpd:2.4.39-4`], image: httpd(box) },
    { names: [`${e2e}/nonewprivs:1.3`], image: await effectiveUid(debian, box) },
    ...users.map((line) => {
      const [name = '', ...user] = line.split(':');
      return {
        names: [`${staging}/test-image-user-${name}:latest`],
        image: image([box], { Cmd: ['sh'], User: user.join(':') }),
      };
    }),
    {
      names: [`${staging}/test-image-predefined-group:latest`],
      image: image([box, group], { Cmd: ['sh'], User: '1000' }),
    },
    ...[
      'test-image-latest:latest',
      'test-image-tag:test',
      'test-image-tag:all',
      'test-image-1:latest',
      'test-image-2:latest',
      'test-image-3:latest',
    ].map((name) => ({ names: [`${staging}/${name}`], image: named(box, name) })),
    { names: ['1', '2', '3'].map((tag) => `${staging}/test-image-tags:${tag}`), image: named(box, 'test-image-tags') },
    {
      names: ['registry.k8s.io/pause:3.9', 'k8s.gcr.io/pause:3.9'],
      image: named(box, 'pause'),
    },
    {
      names: ['1.35.0-glibc', '1-uclibc', '1', '1-glibc', '1-musl'].map((tag) => `${benchmarks}/busybox:${tag}`),
      image: named(box, 'benchmark'),
    },
  ];
}

const passwd = [
  'root:x:0:0:root:/root:/bin/sh',
  'daemon:x:1:1:daemon:/usr/sbin:/bin/false',
  'www-data:x:33:33:www-data:/var/www:/bin/false',
  'nobody:x:65534:65534:nobody:/home:/bin/false',
  '',
].join('\n');
const groups = ['root:x:0:', 'daemon:x:1:', 'www-data:x:33:', 'nogroup:x:65534:', ''].join('\n');

export const file = (name: string, content: string, mode = 0o644): TarSpec => ({ name, content, mode });
const directory = (name: string, mode = 0o755): TarSpec => ({ name, type: 'directory', mode });

/** Files that runc and every shell expect in an image. */
const base: readonly TarSpec[] = [
  ...['bin', 'etc', 'dev', 'home', 'mnt', 'proc', 'run', 'sys', 'usr', 'usr/bin', 'var'].map((name) => directory(name)),
  directory('root', 0o700),
  directory('tmp', 0o1777),
  { name: 'var/run', type: 'symlink', target: '../run' },
  file('etc/passwd', passwd),
  file('etc/group', groups),
  file('etc/hostname', 'image\n'),
];

export function image(layers: readonly (readonly TarSpec[])[], config: object): ImageSpec {
  const path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  return { layers: layers.map(withParents), config: { config: { Env: [path], ...config } } };
}

/**
 * Busybox with each applet as a hard link, so that masking /bin/ls masks that alone, and with pgrep and ipcs, which
 * Debian's lacks, from elsewhere. The links have its mode, since containerd gives a file the mode of its last link.
 * Debian's shell runs applets of its own instead of what is in PATH, so /bin/sh is a copy of it that knows no `ls`: the
 * spec of masked paths asks for a shell's word about /bin/ls.
 */
export async function busybox(debian: DebianFiles): Promise<readonly TarSpec[]> {
  const others = ['usr/bin/pgrep', 'usr/bin/ipcs'];
  const shells = ['sh', 'ash'];
  const applets = (await debian.applets('usr/bin/busybox')).filter(
    (name) => !shells.includes(name) && name !== 'busybox',
  );
  return [
    ...base,
    await debian.program('usr/bin/busybox', { as: 'bin/busybox' }),
    ...applets.map((name): TarSpec => ({ name: `bin/${name}`, type: 'link', target: 'bin/busybox', mode: 0o755 })),
    { name: 'bin/sh', content: withoutLs(await debian.read('usr/bin/busybox')), mode: 0o755 },
    { name: 'bin/ash', type: 'link', target: 'bin/sh', mode: 0o755 },
    ...(await Promise.all(others.map((path) => debian.program(path)))),
    ...(await debian.libraries(...others)),
  ];
}

/** Its table of applets is sorted, and "lr" stands where "ls" did. */
function withoutLs(binary: Buffer): Buffer {
  const at = binary.indexOf('\0ls\0');
  if (at < 0 || binary.includes('\0ls\0', at + 1)) {
    throw new PodvmError('unsupported', 'Cannot make the stand-in of busybox: its table of applets is not as it was');
  }
  const changed = Buffer.from(binary);
  changed.write('\0lr\0', at, 'latin1');
  return changed;
}

export async function nginx(debian: DebianFiles): Promise<readonly TarSpec[]> {
  const program = 'usr/sbin/nginx';
  return [
    await debian.program(program),
    ...(await debian.libraries(program)),
    file('etc/nginx/mime.types', 'types { text/html html; }\n'),
    file('usr/share/nginx/html/index.html', '<title>Welcome to nginx!</title>\n'),
    ...['var/lib/nginx', 'var/log/nginx'].map((name) => directory(name)),
  ];
}

export function webServer(layers: readonly (readonly TarSpec[])[], port: number): ImageSpec {
  const config = `user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
  include mime.types;
  access_log /dev/stdout;
  server { listen ${port}; root /usr/share/nginx/html; }
}
`;
  return image([...layers, [file('etc/nginx/nginx.conf', config)]], {
    Cmd: ['nginx', '-g', 'daemon off;'],
    StopSignal: 'SIGQUIT',
  });
}

/** The spec wants a page on port 80 and the word "httpd" in the log. */
function httpd(box: readonly TarSpec[]): ImageSpec {
  const page = file('www/index.html', '<h1>It works!</h1>\n');
  return image([box, [page]], { Cmd: ['sh', '-c', 'echo httpd starts; exec httpd -f -p 80 -h /www'] });
}

/** A setuid program of root that prints the user as whom it runs, in one line of perl. */
async function effectiveUid(debian: DebianFiles, box: readonly TarSpec[]): Promise<ImageSpec> {
  const perl = await debian.program('usr/bin/perl', { as: 'nnp', mode: 0o4755 });
  const layer = [perl, ...(await debian.libraries('usr/bin/perl'))];
  return image([box, layer], { Entrypoint: ['/nnp', '-e', 'print "Effective uid: $>\\n"'] });
}

/** One of the images whose specs require little more than that they differ. */
export function named(box: readonly TarSpec[], name: string): ImageSpec {
  return image([box, [file('etc/name', `${name}\n`)]], { Cmd: ['sleep', 'infinity'] });
}
