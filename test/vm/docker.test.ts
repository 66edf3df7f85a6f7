import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { buildImage } from '../images/build-images.ts';
import { dockerRecipe } from '../images/recipes.ts';
import { freePort, type Registry, startRegistry } from '../images/registry.ts';
import { whyNoVm } from './node.ts';
import { type CliNode, openCliNode } from './cli-node.ts';

const skip = await whyNoVm();
/** An emulated daemon takes half a minute to start, and each of its containers ten seconds. */
const patienceMs = 600_000;

/** Command of the pod. Moves its processes first, as Docker's images do: a cgroup that delegates may have none. */
const script = `
mkdir -p /sys/fs/cgroup/init
for pid in $(cat /sys/fs/cgroup/cgroup.procs); do echo $pid >/sys/fs/cgroup/init/cgroup.procs || true; done 2>/dev/null
sed 's/ / +/g; s/^/+/' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
dockerd >/tmp/log 2>&1 &
until docker version >/dev/null 2>&1; do kill -0 $! || { cat /tmp/log; exit 1; }; sleep 1; done
docker info 2>/dev/null | grep Storage
mkdir /tmp/web && cp /bin/busybox /tmp/web
printf '%s\\n' 'FROM scratch' 'COPY busybox /bin/busybox' \\
  'RUN ["/bin/busybox", "sh", "-c", "mkdir /www; echo built here >/www/index.html"]' \\
  'CMD ["/bin/busybox", "httpd", "-f", "-h", "/www"]' >/tmp/web/Dockerfile
DOCKER_BUILDKIT=0 docker build --quiet --tag web /tmp/web
docker run --detach --memory 64m --publish 8080:80 web
until busybox wget -qO- http://127.0.0.1:8080/; do sleep 1; done
echo served
exec sleep 1000000`;

describe('a Docker daemon in a pod', { skip, timeout: 900_000 }, () => {
  let registry: Registry;
  let cli: CliNode;

  before(async () => {
    registry = await startRegistry();
    await registry.push(await buildImage(dockerRecipe, new AbortController().signal), dockerRecipe.name);
    cli = await openCliNode({ isSetUp: true });
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
  });

  test('builds an image and runs a container of it, which answers at a host port of the pod', async () => {
    const hostPort = await freePort();
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'docker' },
      spec: {
        restartPolicy: 'Never',
        terminationGracePeriodSeconds: 1,
        volumes: [{ name: 'docker', emptyDir: {} }],
        containers: [
          {
            name: 'daemon',
            image: `${registry.name}/${dockerRecipe.name}`,
            securityContext: { privileged: true },
            command: ['sh', '-ec', script],
            ports: [{ containerPort: 8080, hostPort }],
            volumeMounts: [{ name: 'docker', mountPath: '/var/lib/docker' }],
          },
        ],
      },
    };
    const running = cli.start(['run', '-'], JSON.stringify(pod));
    await running.shows(/served/, patienceMs);
    assert.match(running.stdout(), /Storage Driver: overlay2\n[^]*built here\nserved\n/, running.stderr());
    const answer = await fetch(`http://127.0.0.1:${hostPort}/`);
    assert.equal(await answer.text(), 'built here\n');
    running.child.kill('SIGINT');
    await running.ended;
  });
});
