import assert from 'node:assert/strict';
import { test } from 'node:test';
import { namedImages } from './named-images.ts';

test('namedImages() lists the images of all containers and volumes, each once', async () => {
  const text = `
apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  volumes: [{ name: v, image: { reference: r.example/volume } }, { name: e, emptyDir: {} }]
  initContainers: [{ name: first, image: r.example/first }]
  containers: [{ name: a, image: nginx }, { name: b, image: r.example/first }]
`;
  const other = 'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: m, image: other}]}\n';
  const files = [text, other].map((it, at) => ({ name: `${at}.yaml`, text: it }));
  const images = await namedImages(files, new AbortController().signal);
  assert.deepEqual(images.toSorted(), ['nginx', 'other', 'r.example/first', 'r.example/volume']);
});
