import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isFile, whatIsNamed } from './run-words.ts';

const nothing = () => false;

describe('whatIsNamed()', () => {
  it('treats a word as a file if that exists or the word looks like a path', () => {
    assert.deepEqual(
      whatIsNamed('nginx', ['b'], (word) => word === 'nginx'),
      { kind: 'files', words: ['nginx', 'b'] },
    );
    for (const word of ['-', 'no.yaml', 'no.yml', 'no.json', './nginx', '../nginx', '/dev/stdin']) {
      assert.deepEqual(whatIsNamed(word, [], nothing), { kind: 'files', words: [word] }, word);
    }
  });

  it('treats the name of an image as the image even if a directory has it', () => {
    assert.deepEqual(
      [isFile(import.meta.dirname), isFile(import.meta.filename), isFile('/nowhere')],
      [false, true, false],
    );
  });

  it('treats any other reference, and an image’s id, as an image with its command', () => {
    for (const image of [
      'nginx',
      'nginx:1.27',
      'localhost/podvm/base',
      'r.example:5000/a/b',
      `sha256:${'a'.repeat(64)}`,
    ]) {
      assert.deepEqual(whatIsNamed(image, ['ls', '--', '-l'], nothing), {
        kind: 'image',
        image,
        words: ['ls', '--', '-l'],
      });
    }
    assert.deepEqual(whatIsNamed('nginx', ['--', 'ls'], nothing), { kind: 'image', image: 'nginx', words: ['ls'] });
  });

  it('reports both meanings of a word that is neither', () => {
    for (const [word, why] of [
      ['NGINX', /^Cannot run "NGINX": there is no such file, and it is not an image either: .*lower-case/],
      ['web pod', /it is not an image either/],
      ['', /^Cannot run "": there is no such file/],
      ['a@b@c', /more than one @$/],
    ] as const) {
      assert.throws(() => whatIsNamed(word, [], nothing), {
        kind: 'invalid',
        message: why,
        fix: /YAML files.*image such as/,
      });
    }
  });
});
