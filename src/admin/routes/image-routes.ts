import type { ServerResponse } from 'node:http';
import { kindOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import {
  type ImageDetails,
  type ImageProgress,
  type ImageSummary,
  loadRequestSchema,
  type PullInProgress,
  pruneRequestSchema,
  pullRequestSchema,
  tagRequestSchema,
  type UntaggedAnswer,
} from '#api/images.ts';
import { baseReference } from '#image/source/base-image.ts';
import type { Image, ImageStore, LoadedImage, PullOptions } from '#image/images.ts';
import { completeReference, parseReference } from '#base/image-reference.ts';
import { errorBodyOf } from '../error-body.ts';
import { readJson, sendJson } from '../http.ts';
import type { Routes } from '../routes.ts';

/** Calls on images. `inUse`: ids of images that pods use, in addition to those that are held. */
export function imageRoutes(images: ImageStore, inUse: () => ReadonlySet<string> = () => new Set()): Routes {
  return {
    'GET /v1/images': ({ response }) => sendJson(response, 200, images.list().map(summaryOf)),
    'DELETE /v1/images': async ({ query, response }) => {
      const { untagged, removed } = await images.untag(referenceOf(query, 'remove'));
      const answer: UntaggedAnswer = { untagged: [...untagged], ...(removed === undefined ? {} : { removed }) };
      sendJson(response, 200, answer);
    },
    'GET /v1/images/inspect': ({ query, response }) => {
      const reference = referenceOf(query, 'inspect');
      const image = images.get(reference);
      if (image === undefined) {
        throw new PodvmError('notFound', `Cannot inspect image ${printable(reference)}: no such image on this node`, {
          fix: 'List the images with `podvm image ls`.',
        });
      }
      const details: ImageDetails = { ...summaryOf(image), config: { ...image.config } };
      sendJson(response, 200, details);
    },
    'GET /v1/images/pulling': ({ response }) => {
      const pulls = images.counts.pulling.map(({ reference, doing }): PullInProgress => ({ reference, doing }));
      sendJson(response, 200, pulls);
    },
    'POST /v1/images/prune': async ({ request, response }) => {
      const { all } = await readJson(request, pruneRequestSchema);
      sendJson(response, 200, (await prune(images, all, inUse())).map(summaryOf));
    },
    'POST /v1/images/tag': async ({ request, response }) => {
      const { reference, name } = await readJson(request, tagRequestSchema);
      sendJson(response, 200, summaryOf(await images.tag(reference, name)));
    },
    'POST /v1/images/pull': async ({ request, response, signal }) => {
      const { reference, insecure, logins } = await readJson(request, pullRequestSchema);
      const options = { ...(insecure ? { insecure } : {}), logins };
      await report(response, async (say) => {
        const names = [completeReference(parseReference(reference))];
        return [{ ...(await images.pull(reference, { ...options, ...say }, signal)), names }];
      });
    },
    'POST /v1/images/load': async ({ request, response, signal }) => {
      const { path, reference } = await readJson(request, loadRequestSchema);
      await report(response, async (say) => await images.load(path, reference, say, signal));
    },
    'POST /v1/images/build-base': async ({ response, signal }) =>
      await report(response, async (say) => [{ ...(await images.buildBase(say, signal)), names: [baseReference] }]),
  };
}

/** Removes unused images: those without a tag or, with `all`, every one. Returns the removed images. */
async function prune(images: ImageStore, all: boolean, inUse: ReadonlySet<string>): Promise<readonly Image[]> {
  const removed: Image[] = [];
  const unused = images.list().filter(({ id }) => !inUse.has(id));
  for (const image of unused.filter(({ references }) => all || references.length === 0)) {
    try {
      removed.push(await images.remove(image.id));
    } catch (error) {
      if (kindOf(error) !== 'busy' && kindOf(error) !== 'notFound') throw error; // in use, or just removed
    }
  }
  return removed;
}

/** Sends progress as lines during the work. The last line has the result. */
async function report(
  response: ServerResponse,
  work: (say: Pick<PullOptions, 'onProgress'>) => Promise<readonly LoadedImage[]>,
): Promise<void> {
  const line = (progress: ImageProgress) => response.write(`${JSON.stringify(progress)}\n`);
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  try {
    const images = await work({ onProgress: (message) => line({ message }) });
    line({ done: images.map((image) => ({ ...summaryOf(image), names: [...image.names] })) });
  } catch (error) {
    line({ error: errorBodyOf(error) });
  }
  response.end();
}

function referenceOf(query: URLSearchParams, verb: string): string {
  const reference = query.get('reference');
  if (reference !== null) return reference;
  throw new PodvmError('invalid', `Cannot ${verb} an image: no reference given`);
}

function summaryOf({ id, references, digests, sizeBytes, createdAt, damaged }: Image): ImageSummary {
  const state = damaged === undefined ? {} : { damaged };
  return { id, references: [...references], digests: [...digests], sizeBytes, createdAt, ...state };
}
