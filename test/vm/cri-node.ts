import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connectTestClient, type ClientOf } from '#cri/testing/grpc-client.ts';
import { ImageService, RuntimeService } from '#cri/schema/api_pb.ts';
import { tracesOf } from '../leaks.ts';
import { openDesk, type Desk } from './typed.ts';

/** A `podvm daemon` on a desk of its own, and a kubelet's connection to it. */
export interface CriNode extends AsyncDisposable {
  readonly desk: Desk;
  readonly runtime: ClientOf<typeof RuntimeService>;
  readonly images: ClientOf<typeof ImageService>;
  /** Sandboxes made here: of none of them may anything be left when the node is disposed of. */
  readonly ids: string[];
}

/** Takes CNI configurations from `net.d` on the desk, empty at first, if it is told to; else it has its own network. */
export async function openCriNode({ hasCniDirectory = false } = {}): Promise<CriNode> {
  const desk = await openDesk({ isSetUp: true });
  const cniDirectory = join(desk.root, 'net.d');
  const configuration = join(desk.root, 'podvm.yaml');
  if (hasCniDirectory) {
    await mkdir(cniDirectory);
    await writeFile(configuration, `cniConfig: ${cniDirectory}\n`);
  }
  const daemon = desk.start(['daemon', ...(hasCniDirectory ? ['--config', configuration] : [])]);
  await daemon.shows(/ info serving /);
  const client = connectTestClient(join(desk.root, 'cri.sock'));
  const ids: string[] = [];
  return {
    desk,
    runtime: client.of(RuntimeService),
    images: client.of(ImageService),
    ids,
    async [Symbol.asyncDispose]() {
      client[Symbol.dispose]();
      daemon.child.kill('SIGTERM');
      assert.equal((await daemon.ended).code, 0);
      assert.deepEqual(await tracesOf({ ids }), []);
      await desk[Symbol.asyncDispose]();
    },
  };
}
