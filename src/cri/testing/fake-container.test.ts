import { describeExecs } from '#sandbox/testing/exec.conformance.ts';
import { FakeContainer } from './fake-container.ts';

describeExecs('fake', async () => ({
  container: new FakeContainer(),
  [Symbol.asyncDispose]: () => Promise.resolve(),
}));
