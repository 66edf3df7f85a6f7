import type { IncomingMessage, ServerResponse } from 'node:http';
import { PodvmError } from '#base/errors.ts';
import { type ImageProgress, type ImageSummary, loadRequestSchema, pullRequestSchema } from '#api/images.ts';
import type { Image, ImageStore, PullOptions } from '#image/images.ts';
import { errorBodyOf } from './error-body.ts';
import { readJson, sendJson } from './http.ts';

/** Serves `/v1/images...`; false when the path is none of its. */
export async function serveImages(
  images: ImageStore,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  signal: AbortSignal,
): Promise<boolean> {
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /v1/images':
      sendJson(response, 200, images.list().map(summaryOf));
      return true;
    case 'DELETE /v1/images': {
      const reference = url.searchParams.get('reference');
      if (reference === null) throw new PodvmError('invalid', 'Cannot remove an image: no reference was given');
      sendJson(response, 200, summaryOf(await images.remove(reference)));
      return true;
    }
    case 'POST /v1/images/pull': {
      const { reference, insecure, authFile } = await readJson(request, pullRequestSchema);
      const options = { ...(insecure ? { insecure } : {}), ...(authFile === undefined ? {} : { authFile }) };
      await report(response, async (say) => [await images.pull(reference, { ...options, ...say }, signal)]);
      return true;
    }
    case 'POST /v1/images/load': {
      const { path, reference } = await readJson(request, loadRequestSchema);
      await report(response, async (say) => await images.load(path, reference, say, signal));
      return true;
    }
    case 'POST /v1/images/build-base':
      await report(response, async (say) => [await images.buildBase(say, signal)]);
      return true;
    default:
      return false;
  }
}

/** Sends progress as lines while the work goes on; the last line says how it ended. */
async function report(
  response: ServerResponse,
  work: (say: Pick<PullOptions, 'onProgress'>) => Promise<readonly Image[]>,
): Promise<void> {
  const line = (progress: ImageProgress) => response.write(`${JSON.stringify(progress)}\n`);
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  try {
    line({ done: (await work({ onProgress: (message) => line({ message }) })).map(summaryOf) });
  } catch (error) {
    line({ error: errorBodyOf(error) });
  }
  response.end();
}

function summaryOf({ id, references, digests, sizeBytes, createdAt }: Image): ImageSummary {
  return { id, references: [...references], digests: [...digests], sizeBytes, createdAt };
}
