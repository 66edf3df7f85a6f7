import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Command } from 'commander';
import { PodvmError } from '#base/errors.ts';
import { acceptBooleanValues } from '../boolean-values.ts';
import { podOfImage } from './pod-of-image.ts';
import { refuseFlags } from './refused-flags.ts';
import { runOptions } from './run-options.ts';

interface Seen {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly spec: Readonly<Record<string, unknown>> & {
    readonly containers: readonly Readonly<Record<string, unknown>>[];
  };
}

/** The Pod of `podvm run` with these words, as commander reads them. */
function podOf(...line: readonly string[]) {
  const command = new Command('run').argument('[image]').argument('[command...]').passThroughOptions().exitOverride();
  for (const option of runOptions) command.addOption(option);
  acceptBooleanValues(command, line);
  command.configureOutput({ writeErr: () => undefined }).parse(line, { from: 'user' });
  const [image = '', ...words] = command.args;
  refuseFlags(command.opts());
  const made = podOfImage(command.opts(), {
    image,
    words,
    environment: { HOME: '/home/me', COST: '$(5)' },
    envFiles: new Map([['vars', '# colours\n\n  RED=ff0000\r\nQUOTED="as it is"\nHOME\nNOTHING\n']]),
  });
  const pod = made.pod as unknown as Seen; // SAFE: the fields of a Pod
  return { ...made, pod, metadata: pod.metadata, spec: pod.spec, container: pod.spec.containers[0] ?? {} };
}

const refusal = (...line: readonly string[]): PodvmError => {
  try {
    podOf(...line);
  } catch (error) {
    assert.ok(error instanceof PodvmError, String(error));
    assert.ok(error.fix !== undefined, error.message);
    return error;
  }
  throw new Error(`not refused: ${line.join(' ')}`);
};

describe('podOfImage()', () => {
  it('makes the smallest Pod of an image without flags: pulled if missing, not restarted', () => {
    assert.deepEqual(podOf('nginx').pod, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { generateName: 'nginx-' },
      spec: {
        restartPolicy: 'Never',
        containers: [{ name: 'nginx', image: 'nginx', imagePullPolicy: 'IfNotPresent' }],
      },
    });
  });

  it('names pod and container after the last word of the image', () => {
    for (const [image, name] of [
      ['docker.io/library/nginx:1.27', 'nginx'],
      ['localhost:5000/Team/my_app@sha256:0', 'my-app'],
      [`x/${'long-'.repeat(20)}`, 'long-'.repeat(10).slice(0, -1)],
      [`sha256:${'a'.repeat(64)}`, 'sha256'],
    ] as const)
      assert.deepEqual([podOf(image).container['name'], podOf(image).metadata], [name, { generateName: `${name}-` }]);
    assert.deepEqual(podOf('--name', 'web', 'nginx').metadata, { name: 'web' });
  });

  it("gives the words after the image to the image's entrypoint, with their dollars", () => {
    const { container } = podOf('busybox', 'sh', '-c', 'echo $(date) $$ $HOME $$(x)', '-it');
    assert.deepEqual(container['args'], ['sh', '-c', 'echo $$(date) $$$ $HOME $$$$(x)', '-it']);
    assert.equal('command' in container, false);
  });

  it('--entrypoint replaces the entrypoint, and removes it when it is empty', () => {
    const replaced = podOf('--entrypoint', 'ls', 'busybox', '-l').container;
    assert.deepEqual([replaced['command'], replaced['args']], [['ls'], ['-l']]);
    const removed = podOf('--entrypoint', '', 'busybox', 'ls', '-l').container;
    assert.deepEqual([removed['command'], 'args' in removed], [['ls', '-l'], false]);
    assert.match(refusal('--entrypoint', '', 'busybox').message, /nothing is left to run/);
    const { message, fix } = refusal('--name', '_My_app', 'busybox');
    assert.equal(message, 'Cannot use --name _My_app: a pod has a name of a-z, 0-9, - and .');
    assert.equal(fix, 'Use --name my-app.');
    assert.equal(refusal('--name', '__', 'busybox').fix, 'Use --name web-1.');
  });

  it('-i and -t give the container an input that can end, and a terminal', () => {
    const { container } = podOf('--rm', '-it', 'busybox');
    assert.deepEqual([container['stdin'], container['stdinOnce'], container['tty']], [true, true, true]);
  });

  it('-e sets variables, and overrides --env-file; a name alone takes podvm’s value', () => {
    const { container } = podOf('-e', 'RED=1', '-e', 'COST', '-e', 'EMPTY=', '--env-file', 'vars', '-e', 'A=b=c', 'i');
    assert.deepEqual(container['env'], [
      { name: 'RED', value: '1' },
      { name: 'QUOTED', value: '"as it is"' },
      { name: 'HOME', value: '/home/me' },
      { name: 'COST', value: '$$(5)' },
      { name: 'EMPTY', value: '' },
      { name: 'A', value: 'b=c' },
    ]);
    assert.match(refusal('-e', '=x', 'i').message, /^Cannot use --env =x: the name is missing$/);
  });

  it('makes the same Pod with a flag that is false as without it', () => {
    for (const flag of ['--privileged', '--read-only', '--interactive', '--tty']) {
      assert.deepEqual(podOf(`${flag}=false`, 'i').pod, podOf('i').pod, flag);
      assert.deepEqual(podOf(flag, `${flag}=false`, 'i').pod, podOf('i').pod, flag);
      assert.deepEqual(podOf(`${flag}=true`, 'i').pod, podOf(flag, 'i').pod, flag);
    }
  });

  it('-p publishes ports by address, protocol and range', () => {
    const { container } = podOf('-p', '8080:80', '-p', '127.0.0.1:53:53/udp', '-p', '[::1]:7-8:17-18', 'i');
    assert.deepEqual(container['ports'], [
      { containerPort: 80, hostPort: 8080 },
      { containerPort: 53, hostPort: 53, hostIP: '127.0.0.1', protocol: 'UDP' },
      { containerPort: 17, hostPort: 7, hostIP: '::1' },
      { containerPort: 18, hostPort: 8, hostIP: '::1' },
    ]);
    for (const [port, why] of [
      ['80', /a Pod names its port of the host/],
      ['127.0.0.1::80', /not a published port/],
      ['0:80', /from 1 to 65535/],
      ['80:70000', /from 1 to 65535/],
      ['1-2:3', /different lengths/],
      ['1-60000:1-60000', /at most 1000 ports/],
      ['999.1.1.1:80:80', /not an IP address/],
      ['80:80/icmp', /not a published port/],
    ] as const)
      assert.match(refusal('-p', port, 'i').message, why, port);
    assert.match(refusal('-p', '80', 'i').fix ?? '', /^Use -\S+ 80:80, or `podvm port-forward POD :80`/);
    for (const [port, same] of Object.entries({ '53/udp': '53:53/udp', '7-8': '7-8:7-8' }))
      assert.match(refusal('-p', port, 'i').fix ?? '', new RegExp(`^Use -\\S+ ${same}\\.$`));
  });

  it('-v mounts a path of the host, or an empty volume that ends with the pod', () => {
    const { spec, container } = podOf(
      '-v',
      '/srv:/data:ro,z',
      '-v',
      './x:/x',
      '-v',
      '/cache',
      '-v',
      '/a:/b:rslave',
      'i',
    );
    assert.deepEqual(spec['volumes'], [
      { name: 'volume-0', hostPath: { path: '/srv' } },
      { name: 'volume-1', hostPath: { path: `${process.cwd()}/x` } },
      { name: 'volume-2', emptyDir: {} },
      { name: 'volume-3', hostPath: { path: '/a' } },
    ]);
    assert.deepEqual(container['volumeMounts'], [
      { name: 'volume-0', mountPath: '/data', readOnly: true },
      { name: 'volume-1', mountPath: '/x' },
      { name: 'volume-2', mountPath: '/cache' },
      { name: 'volume-3', mountPath: '/b', mountPropagation: 'HostToContainer' },
    ]);
    for (const [volume, why] of [
      ['data:/data', /data is not a path, and -v takes no volumes by name/],
      [':/data', /an empty word is not a path/],
      ['/a:b', /must be absolute/],
      ['cache', /must be absolute/],
      ['/a:/b:U', /the option U has no meaning/],
      ['/a:/b:ro:x', /more than three parts/],
    ] as const)
      assert.match(refusal('-v', volume, 'i').message, why, volume);
    assert.match(refusal('-v', 'data:/data', 'i').fix ?? '', /such as \.\/data, or a PersistentVolumeClaim/);
  });

  it('--mount does the same by names, and requires the path of the host to exist', () => {
    const { spec, container, mustExist, images } = podOf(
      ...['--mount', 'type=bind,src=/srv,dst=/data,readonly'],
      ...['--mount', 'type=tmpfs,target=/run,tmpfs-size=64m', '--mount', 'target=/v'],
      ...['--mount', 'type=image,source=busybox,target=/tools,ro=false', 'i'],
    );
    assert.deepEqual(spec['volumes'], [
      { name: 'mount-0', hostPath: { path: '/srv' } },
      { name: 'mount-1', emptyDir: { medium: 'Memory', sizeLimit: '64Mi' } },
      { name: 'mount-2', emptyDir: {} },
      { name: 'mount-3', image: { reference: 'busybox' } },
    ]);
    assert.deepEqual(container['volumeMounts'], [
      { name: 'mount-0', mountPath: '/data', readOnly: true },
      { name: 'mount-1', mountPath: '/run' },
      { name: 'mount-2', mountPath: '/v' },
      { name: 'mount-3', mountPath: '/tools' },
    ]);
    assert.deepEqual(mustExist, ['/srv']);
    assert.deepEqual(images, ['i', 'busybox']);
    for (const [mount, why] of [
      ['type=bind,target=/x', /source is missing/],
      ['type=bind,source=/x', /target is missing/],
      ['source=data,target=/x', /no volumes by name/],
      ['type=npipe,target=/x', /no type npipe/],
      ['type=tmpfs,target=/x,tmpfs-size=big', /big is not a size/],
      ['target=/x,tmpfs-size=1m', /tmpfs-size is for type=tmpfs/],
      ['target=/x,readonly=maybe', /true or false/],
      ['target=/x,volume-driver=nfs', /volume-driver has no meaning/],
    ] as const)
      assert.match(refusal('--mount', mount, 'i').message, why, mount);
  });

  it('limits cores and memory in Docker’s units', () => {
    const limitsOf = (...line: readonly string[]) => podOf(...line, 'i').container['resources'];
    assert.deepEqual(limitsOf('--cpus', '1.5', '-m', '512m'), { limits: { cpu: '1.5', memory: '512Mi' } });
    for (const [written, memory] of [
      ['2g', '2Gi'],
      ['1.5G', '1.5Gi'],
      ['64Mi', '64Mi'],
      ['64MB', '64Mi'],
      ['1024k', '1024Ki'],
      ['4096', '4096'],
      ['4096b', '4096'],
    ] as const)
      assert.deepEqual(limitsOf('-m', written), { limits: { memory } }, written);
    for (const wrong of ['much', '0', '-1', '5x'])
      assert.match(refusal(`--memory=${wrong}`, 'i').message, /not a size/);
    for (const wrong of ['all', '0', '-1', '1.2345'])
      assert.match(refusal(`--cpus=${wrong}`, 'i').message, /not a number/);
  });

  it('-u accepts only numbers, like a Pod', () => {
    assert.deepEqual(podOf('-u', '7:8', 'i').container['securityContext'], { runAsUser: 7, runAsGroup: 8 });
    assert.deepEqual(podOf('-u', '7', 'i').container['securityContext'], { runAsUser: 7 });
    assert.match(refusal('-u', 'www-data', 'i').message, /a Pod names users and groups by number$/);
  });

  it('--restart has Docker’s policies', () => {
    const policyOf = (policy: string) => podOf('--restart', policy, 'i').spec['restartPolicy'];
    const policies = ['no', 'on-failure', 'always', 'unless-stopped'].map(policyOf);
    assert.deepEqual(policies, ['Never', 'OnFailure', 'Always', 'Always']);
    assert.match(refusal('--restart', 'on-failure:3', 'i').message, /does not count its restarts/);
    assert.deepEqual(['Never', 'OnFailure', 'Always'].map(policyOf), ['Never', 'OnFailure', 'Always']);
    assert.match(refusal('--restart', 'sometimes', 'i').message, /no such policy/);
  });

  it('combines all flags for privileges', () => {
    const flags = ['--read-only', '--privileged', '--cap-add', 'net_admin,CAP_SYS_TIME', '--cap-drop', 'all'];
    assert.deepEqual(podOf(...flags, '-u', '7', 'i').container['securityContext'], {
      runAsUser: 7,
      readOnlyRootFilesystem: true,
      capabilities: { add: ['NET_ADMIN', 'SYS_TIME'], drop: ['ALL'] },
      privileged: true,
    });
  });

  it('sets names and addresses', () => {
    const hosts = ['--add-host', 'db:192.0.2.7', '--add-host', 'cache=192.0.2.7', '--add-host', 'six:[2001:db8::1]'];
    const { spec } = podOf('--hostname', 'box', ...hosts, '--dns', '192.0.2.53', '--dns', '2001:db8::53', 'i');
    assert.equal(spec['hostname'], 'box');
    assert.deepEqual(spec['hostAliases'], [
      { ip: '192.0.2.7', hostnames: ['db', 'cache'] },
      { ip: '2001:db8::1', hostnames: ['six'] },
    ]);
    assert.deepEqual([spec['dnsPolicy'], spec['dnsConfig']], ['None', { nameservers: ['192.0.2.53', '2001:db8::53'] }]);
    assert.match(refusal('--add-host', 'me:host-gateway', 'i').message, /a Pod names the address/);
    assert.match(refusal('--add-host', 'me', 'i').message, /not a name and an address/);
  });

  it('sets labels and annotations', () => {
    const { metadata } = podOf('-l', 'app=web', '--label', 'plain', '--annotation', 'a/b=c=d', 'i');
    assert.deepEqual(metadata['labels'], { app: 'web', plain: '' });
    assert.deepEqual(metadata['annotations'], { 'a/b': 'c=d' });
    assert.match(refusal('-l', '=x', 'i').message, /the key is missing/);
  });

  it('pulls on request; an image of localhost cannot be pulled', () => {
    const policyOf = (...line: readonly string[]) => podOf(...line).container['imagePullPolicy'];
    assert.equal(policyOf('--pull', 'always', 'i'), 'Always');
    assert.equal(policyOf('--pull', 'never', 'i'), 'Never');
    assert.equal(policyOf('localhost/podvm/base'), 'Never');
    assert.equal(policyOf('localhost:5000/base'), 'IfNotPresent');
  });

  it('writes the workdir unchanged', () => {
    assert.equal(podOf('-w', '/srv', 'i').container['workingDir'], '/srv');
  });
});

describe('refuseFlags()', () => {
  it('refuses flags that a Pod cannot express, with what to do instead', () => {
    for (const [line, message] of [
      [['--init', 'nginx'], /^Cannot use --init: /],
      [['--platform', 'linux/arm64', 'nginx'], /^Cannot use --platform: /],
      [['--health-cmd=true', 'nginx'], /^Cannot use --health-cmd: .*probe/],
      [['--no-healthcheck', 'nginx'], /^Cannot use --no-healthcheck: /],
      [['-P', 'nginx'], /^Cannot use --publish-all: /],
      [['--gpus', 'all', 'nginx'], /^Cannot use --gpus: /],
      [['--net=host', 'nginx'], /^Cannot use --net: a pod has one network/],
      [['-c', '512', 'nginx'], /^Cannot use --cpu-shares: /],
      [['-a', 'stdout', 'nginx'], /^Cannot use --attach: /],
    ] as const) {
      const error = refusal(...line);
      assert.equal(error.kind, 'unsupported');
      assert.match(error.message, message);
    }
  });

  it('accepts the same words in the command of the container', () => {
    assert.deepEqual(podOf('alpine', 'tar', '-d', '--init').container['args'], ['tar', '-d', '--init']);
  });
});
