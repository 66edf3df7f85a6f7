import type { Typist } from './typist.ts';

/** A kind of user, who types an hour's lines. */
export interface User {
  readonly name: string;
  /** What this user knows already. */
  readonly comesFrom: string;
  /** No template of machines is there yet. */
  readonly isFresh?: boolean;
  readonly types: (at: Typist, hour: Hour) => Promise<void>;
}

export interface Hour {
  /** A port of this host that is free. */
  readonly port: number;
  /** Path of the repository. */
  readonly repo: string;
  /** Whether guests run without hardware virtualisation. */
  readonly isEmulated: boolean;
  /** Makes an OCI layout in the user's home, in a directory of its name, with the tag 1. */
  readonly makeLayout: (name: string, bytes: number) => Promise<void>;
  /** Serves an image with the tag 1 over a slow line. Returns the registry's name. */
  readonly openSlowRegistry: (name: string, bytes: number, bytesPerSecond: number) => Promise<string>;
}

/** An image that needs no registry. */
const image = 'localhost/podvm/base';

/** Gets a page of this host, without a program that may be missing. */
const get = (port: number) =>
  `exec 3<>/dev/tcp/127.0.0.1/${port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3 | tail -n 1`;

export const users: readonly User[] = [
  {
    name: 'docker',
    comesFrom: 'podman or docker',
    isFresh: true,
    async types(at, { port, isEmulated, makeLayout }) {
      await at.type('podvm --help | head -n 3', { shows: [/Usage: podvm/] });
      await at.type('podvm -v', { shows: [/^\d+\.\d+\.\d+$/m] });
      const phases = isEmulated ? [/making the template of its machines: done/] : []; // takes less than two seconds otherwise
      await at.type(`podvm run --rm ${image} echo hello`, { shows: [...phases, /^hello$/m], withinMs: 400_000 });
      await at.begin(`podvm run --rm -it --name box ${image} sh`, /\/ # $/m);
      await at.begin('echo $((6 * 7)); tty', /^42$/m, /\/dev\//);
      await at.send('exit 3');
      await at.ends('exit 3', { code: 3 });
      await at.send(`podvm run --rm -it ${image} sh`);
      await at.send('exit 6'); // before the shell runs
      await at.ends('exit 6', { code: 6 });
      await at.type(`podvm run --rm ${image} no-such-program`, { code: 127, shows: [/no-such-program/, /fix: /] });
      await at.type('mkdir site && echo welcome >site/index.html');
      const web = `-v ./site:/www:ro -p 127.0.0.1:${port}:80 ${image} httpd -f -v -h /www`;
      await at.type(`podvm run -d --name web -e COLOUR=red ${web}`, { shows: [/^web$/m] });
      await at.type('podvm ps', { shows: [/NAMESPACE +NAME +READY/, /web +1\/1 +Running/] });
      await at.type('until podvm exec web wget -qO- http://127.0.0.1 2>/dev/null; do sleep 1; done', {
        shows: [/^welcome$/m],
      });
      await at.type(get(port), { shows: [/^welcome$/m] });
      await at.type("podvm exec web sh -c 'echo $COLOUR'", { shows: [/^red$/m] });
      await at.begin('podvm logs -f web', /GET|response|url/i);
      await at.press('C-c');
      await at.ends('Ctrl-C', { code: 130 });
      await at.type('podvm cp web:/www/index.html page && cat page', { shows: [/^welcome$/m] });
      await at.type('podvm stats --no-stream', { shows: [/POD +CPU % +MEMORY/, /default\/web/] });
      await at.type('podvm pause web && podvm ps', { shows: [/web +1\/1 +Paused/] });
      await at.type('podvm unpause web && podvm restart --grace 0 web', { shows: [/default\/web restarted/] });
      await at.type('podvm ps -q && podvm images -a && podvm info | head -n 2', {
        shows: [/^default\/web$/m, /pods +1 running/],
      });
      await at.begin('podvm stop -t 5 web', /^podvm: stopping web/m); // httpd waits for the kill
      await at.ends('podvm stop', { shows: [/default\/web stopped/] });
      await at.type('podvm ps -a', { shows: [/web /] });
      await at.type('podvm start web && podvm rm -f web', { shows: [/default\/web removed/] });
      await at.type('podvm images', { shows: [/REFERENCE/, /localhost\/podvm\/base/] });
      await makeLayout('large', 300_000_000);
      await at.begin('podvm image load large', /^podvm: flattening .*large:1/m);
      await at.ends('podvm image load', { shows: [/^docker\.io\/library\/large:1$/m] });
      await at.type('podvm image rm large:1 && podvm image load -q large', { shows: [/removed\n[^\n]*large:1$/] });
      await at.type('podvm rmi large:1', { code: 2, shows: [/podvm image rm/] });
      await at.type('podvm image build .', { code: 2, shows: [/podvm image load FILE/] });
      await at.type(`podvm run -p 80 ${image}`, { code: 125, shows: [/-?-publish 80:80/] });
      await at.type(`podvm run -v data:/data ${image}`, { code: 125, shows: [/\.\/data/] });
      await at.type('podvm docker ps', { code: 2, shows: [/podvm ps/] });
      await at.type('podvm compose up', { code: 2, shows: [/podvm run/] });
      await at.type(`podvm run --link a:b ${image}`, { code: 125, shows: [/--link/] });
      await at.type(`podvm run -d --name web ${image} sleep 1000`, { shows: [/^web$/m] });
      await at.type(`podvm run -d --name web ${image} sleep 1000`, { code: 125, shows: [/is running/, /fix: /] });
      await at.type('podvm kill web && podvm wait web', { shows: [/137/] });
      await at.type(`podvm run -dit --name sh ${image} sh`, { shows: [/^sh$/m] });
      await at.begin('podvm attach sh');
      await at.send('echo $((40 + 2))');
      await at.sees('the shell', /^42$/m);
      await at.press('C-p');
      await at.press('C-q');
      await at.ends('Ctrl-P Ctrl-Q', { shows: [/^podvm: detached from sh, which keeps running$/m] });
      await at.begin(`podvm run -it --name left ${image} sh`, /\/ # $/m);
      await at.press('C-p');
      await at.press('C-q');
      await at.ends('Ctrl-P Ctrl-Q', { shows: [/^podvm: detached from left, which keeps running$/m] });
      await at.begin('podvm attach left');
      await at.send('exit 4');
      await at.ends('podvm attach', { code: 4 });
      await at.begin('podvm top', /^default\/sh /m);
      await at.press('C-c');
      await at.ends('Ctrl-C', {});
      await at.type('podvm events -o name', { shows: [/^default\/sh$/m] });
      await at.type('podvm rm $(podvm ps -aq)', { code: 125, shows: [/Cannot remove sh: the pod runs/] });
      await at.begin('podvm system prune', /Remove all pods that have ended.* \[y\/N\]/);
      await at.send('n');
      await at.ends('n', {});
    },
  },
  {
    name: 'kubectl',
    comesFrom: 'kubectl',
    async types(at, { repo, port }) {
      await at.type('podvm get pods', { shows: [/NAMESPACE +NAME +READY/] });
      await at.type(`cp ${repo}/examples/pages.yaml . && podvm apply -f pages.yaml`, {
        shows: [/PersistentVolumeClaim default\/pages created/, /Deployment default\/pages created/],
      });
      await at.type('podvm apply -f pages.yaml', { shows: [/Deployment default\/pages unchanged/] });
      await at.type('until podvm ps -A -l app=pages | grep 1/1; do sleep 1; done', {
        shows: [/pages-0 +1\/1 +Running/],
      });
      await at.type('podvm get deploy,svc,pvc', {
        shows: [/Deployment +pages +1\/1 ready/, /Service +pages +10\.196/, /PersistentVolumeClaim +pages +64 MiB/],
      });
      await at.type('podvm get nodes', { code: 125, shows: [/fix: .*podvm info/] });
      await at.type('podvm top pods --no-stream', { shows: [/default\/pages-0 +\d/] });
      await at.type('podvm exec deploy/pages -- ls', { code: 125, shows: [/podvm ps -o wide/] });
      await at.type('podvm logs pagse-0', { code: 125, shows: [/Did you mean pages-0/] });
      await at.type('podvm describe pod web', { code: 2, shows: [/podvm describe POD/] });
      await at.type('podvm ps -l app=pages -o name', { shows: [/^default\/pages-0$/m] });
      await at.type('podvm ps -o yaml | head -n 3', { shows: [/namespace: default/] });
      await at.type("sed -i 's/replicas: 1/replicas: 2/; /type: Recreate/d; /strategy:/d' pages.yaml");
      await at.type('podvm diff -f pages.yaml', { code: 1, shows: [/pages-1/], isWide: true });
      await at.type('podvm describe pages-0', { shows: [/pages-0/, /Started/], isWide: true });
      await at.type('podvm events pages-0 | tail -n 5', { shows: [/Normal/], isWide: true });
      await at.begin(`podvm port-forward pages-0 ${port}:80`, new RegExp(`127.0.0.1:${port}`));
      await at.press('C-c');
      await at.ends('Ctrl-C', {});
      await at.begin('podvm exec -it pages-0 -- sh', /\/ # $/m);
      await at.begin('cat /pages/index.html', /^Hello, start/m);
      await at.send('exit');
      await at.ends('exit', {});
      await at.type('podvm logs -l app=pages --all-containers --tail 5');
      await at.type('podvm debug pages-0 -- ps -o args | grep httpd', { shows: [/httpd -f/] });
      await at.type(
        "printf 'kind: Pod\\napiVersion: v1\\nmetadata: {name: x}\\nspec: {containers: [{nam: a}]}' | podvm apply -f -",
        {
          code: 125,
          shows: [/nam/],
        },
      );
      await at.type('podvm delete -f pages.yaml', { shows: [/Deployment default\/pages deleted/] });
      await at.type('podvm volume ls', { shows: [/NAMESPACE/, /pages +64 MiB/] });
      await at.type('podvm volume rm pages', { shows: [/default\/pages removed/] });
    },
  },
  {
    name: 'platform',
    comesFrom: 'running nodes of a cluster',
    async types(at) {
      await at.type('podvm version', { shows: [/podvm/] });
      await at.type('podvm version -o yaml', { shows: [/^podvm: /m] });
      await at.type('podvm doctor | tail -n 20', { isWide: true, shows: [/./] });
      await at.type(`podvm run -d --name app -l team=a ${image} sleep 1000`, { shows: [/^app$/m] });
      await at.type('podvm doctor app', { isWide: true, shows: [/machine +ready/, /agent +answers/] });
      await at.type('podvm inspect -o yaml app | grep -m 1 vmmPid', { shows: [/vmmPid: \d+/] });
      await at.type('podvm top --no-stream -l team=a', { shows: [/default\/app/] });
      await at.type('podvm top -o json | head -n 4', { shows: [/"pod": "default\/app"/] });
      await at.type('podvm doctor app -o yaml | head -n 3', { isWide: true, shows: [/isHealthy: /] });
      await at.type('podvm events -o wide app', { isWide: true, shows: [/Normal {3}Started {2}default\/app\/base/] });
      await at.type('podvm system df -o name', { shows: [/^images$/m] });
      await at.type('podvm events -o json app | head -n 1', { shows: [/"reason":"/], isWide: true });
      await at.type('podvm console app | tail -n 2', { isWide: true });
      await at.type('podvm system df', { shows: [/KIND +SIZE +NAME/, /total/], isWide: true });
      await at.type('podvm support-bundle -o bundle.tar.gz && tar tzf bundle.tar.gz | head -n 3', { shows: [/./] });
      await at.type('podvm drain', { shows: [/default\/app stopped/] });
      await at.type('podvm completion bash | head -n 1', { shows: [/Completion of podvm for bash/] });
    },
  },
  {
    name: 'ci',
    comesFrom: 'jobs of a CI',
    async types(at) {
      const job = `{apiVersion: batch/v1, kind: Job, metadata: {name: build}, spec: {completions: 2, parallelism: 2, template:
        {spec: {restartPolicy: Never, containers: [{name: c, image: ${image}, command: [echo, built]}]}}}}`;
      await at.type(`echo '${job.replaceAll(/\s+/g, ' ')}' >job.yaml`);
      await at.type(`podvm run --rm ${image} sh -c 'echo out; echo err >&2; exit 7' >out 2>err`, { code: 7 });
      await at.type('cat out err', { shows: [/^out$/m, /^err$/m] });
      await at.type(`podvm run --rm ${image} echo plain 2>&1 | cat -v`, { shows: [/^plain$/m] });
      await at.type('podvm run --rm -f job.yaml', { shows: [/built/, /built/] });
      await at.type('podvm ps -a -o name | grep build-', { code: 1 });
      await at.type('podvm run --rm 127.0.0.1:1/none true', {
        code: 125,
        shows: [/the registry does not answer/, /fix: /, /ended with code 125/],
      });
      await at.type(`echo data | podvm run --rm -i ${image} sh -c 'cat; pwd' | cat -v`, { shows: [/^data$/m] });
      await at.type(`podvm run --no-daemon --rm ${image} false`, { code: 1 });
      await at.type(`timeout -s INT 20 podvm run --rm ${image} sleep 1000; podvm ps -a -o name`, { shows: [] });
      await at.type(`podvm run --rm --pull never localhost/none true`, { code: 125, shows: [/fix: /] });
    },
  },
  {
    name: 'edge',
    comesFrom: 'boxes in the field, and sandboxes for agents',
    async types(at, { openSlowRegistry }) {
      const closed = '--network none --read-only -m 64m --cpus 1 --cap-drop ALL -u 1000';
      await at.type(`podvm run --dry-run -o yaml ${closed} ${image} id`, { shows: [/kind: Pod/, /memory: 64Mi/] });
      await at.type(`podvm run --rm ${closed} ${image} id -u`, { shows: [/^1000$/m] });
      await at.type(`podvm run --rm ${closed} ${image} touch /x`, { code: 1, shows: [/Read-only file system/] });
      await at.type(`podvm run -d --name box ${closed} ${image} sleep 1000`, { shows: [/^box$/m] });
      await at.type("podvm exec box sh -c 'ip -o link | wc -l'", { shows: [/^1$/m] });
      await at.type('podvm exec box wget -T 2 http://192.0.2.1', { code: 1, shows: [/unreachable/] });
      await at.type('echo input >in && podvm cp in box:/tmp/ 2>&1', { code: 125 });
      await at.type('podvm pause box && podvm exec box true', { code: 125, shows: [/paused/, /podvm unpause/] });
      await at.type('podvm unpause box && podvm exec box echo on', { shows: [/^on$/m] });
      await at.type('podvm stop --grace 0 box && podvm rename box kept && podvm ps -a -o name', {
        shows: [/default\/kept/],
      });
      await at.type('podvm rm kept', { shows: [/default\/kept removed/] });
      await at.type(`podvm run -d --restart always --name daemon ${image} sh -c 'sleep 1; exit 1'`, {
        shows: [/^daemon$/m],
      });
      await at.type('podvm events daemon | grep -c Started', { shows: [/^\d+$/m] });
      await at.type('podvm rm -f daemon', { shows: [/default\/daemon removed/] });
      const far = await openSlowRegistry('app', 4_000_000, 400_000);
      await at.begin(`podvm image pull --insecure ${far}/app:1`, /^podvm: pulling .*: [1-4] of 5 MB/m);
      await at.ends('podvm image pull', { shows: [/^localhost:\d+\/app:1$/m] });
      await at.type(`podvm run -d --name agent ${image} sleep 1000`, { shows: [/^agent$/m] });
      await at.type(`podvm exec agent sh -c 'echo "#!/none" >/tmp/a; echo x >/tmp/b; chmod +x /tmp/a /tmp/b'`);
      await at.type('podvm exec agent /tmp/a', { code: 127, shows: [/Cannot run \/tmp\/a: the interpreter/] });
      await at.type('podvm exec agent /tmp/b', { code: 126, shows: [/Cannot run \/tmp\/b/] });
      await at.type('podvm rm -f agent', { shows: [/default\/agent removed/] });
    },
  },
];
