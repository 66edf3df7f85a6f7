import { createHash } from 'node:crypto';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inNewDirectory, sourceOf } from '../conformance/go-module.ts';
import { DebianFiles } from '../conformance/debian-files.ts';
import { kubernetes as kubernetesModule } from '../kubelet/build-kubelet.ts';
import { compile, optionsIn } from './build-kubernetes.ts';

/** Kubernetes' own tests of a node: paths of programs, and what their images are made of. */
export interface NodeConformance {
  /** Binary of the tests, for `ginkgo`. */
  readonly tests: string;
  /** Runs specs in several processes. */
  readonly ginkgo: string;
  /** Program of the image in which most of the specs' containers run. */
  readonly agnhost: string;
  /** Certificate and key that agnhost serves by, next to each other. */
  readonly certificate: { readonly crt: string; readonly key: string };
  /** Files of the programs that agnhost's image has besides. */
  readonly debian: DebianFiles;
}

/** Builds the tests with the versions of all modules that Kubernetes has. `kubernetes`: its directory. */
export async function buildNodeConformance(
  cache: string,
  kubernetes: string,
  signal: AbortSignal,
): Promise<NodeConformance> {
  const own = await readFile(join(import.meta.dirname, 'programs/node-conformance.go'));
  const hash = createHash('sha256').update(own).update(kubernetesModule.version).digest('hex');
  const home = join(cache, `node-conformance-${hash.slice(0, 16)}`);
  await inNewDirectory(home, async (work) => {
    const options = optionsIn(work, signal);
    for (const name of ['go.mod', 'go.sum']) await copyFile(join(kubernetes, name), join(work, name));
    await writeFile(join(work, 'node_conformance_test.go'), own);
    await compile('ginkgo', 'github.com/onsi/ginkgo/v2/ginkgo', [], options);
    await compile('agnhost', `${kubernetesModule.path}/test/images/agnhost`, [], options);
    await compile('node-conformance.test', '.', [], options, ['test', '-c']);
    const source = join(await sourceOf(kubernetesModule, options), 'test/images/agnhost/porter');
    for (const name of ['localhost.crt', 'localhost.key']) await copyFile(join(source, name), join(work, name));
  });
  return {
    tests: join(home, 'node-conformance.test'),
    ginkgo: join(home, 'ginkgo'),
    agnhost: join(home, 'agnhost'),
    certificate: { crt: join(home, 'localhost.crt'), key: join(home, 'localhost.key') },
    debian: await DebianFiles.unpack(cache, signal, ['bash', 'curl', 'netcat-openbsd']),
  };
}
