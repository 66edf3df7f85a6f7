import { mountFlags, open } from '../constants.ts';
import { codeOf, descriptorPath, ready } from '../engine.ts';
import { attempt, engine, type Scenario } from './support.ts';

const any = (value: unknown) => value as never; // SAFE: every one of these must be refused

export const callsScenarios: Record<string, Scenario> = {
  files(directory) {
    const path = `${directory}/a/b/c`;
    engine.makeDirectories(path, 0o750);
    engine.writeFile(`${path}/file`, 'hellö', 0o640);
    engine.symlink('/etc', `${path}/link`);
    const status = engine.status(`${path}/file`);
    const before = {
      text: engine.readText(`${path}/file`, 100),
      tooBig: attempt(() => engine.readText(`${path}/file`, 3)),
      kinds: [`${path}/file`, `${path}/link`, '/dev/null'].map((each) => engine.status(each)?.kind),
      mode: status?.mode,
      size: status?.size,
      names: engine.list(path).toSorted(),
      absent: engine.status(`${path}/absent`) === undefined,
      noCreate: attempt(() => engine.writeExisting(`${path}/absent`, '1')),
      nul: attempt(() => engine.readText('/etc\0/passwd', 1)),
      notText: attempt(() => engine.readText(7 as unknown as string, 1)), // SAFE: it must refuse it
    };
    engine.rename(`${path}/file`, `${path}/moved`);
    engine.removeTree(`${directory}/a`);
    engine.removeTree(`${directory}/a`);
    return { ...before, removed: engine.list(directory), linkTargetLives: engine.status('/etc')?.kind };
  },

  beneath(directory) {
    engine.makeDirectories(`${directory}/root/inside`);
    engine.writeFile(`${directory}/secret`, 'secret');
    engine.symlink('../../secret', `${directory}/root/inside/escape`);
    engine.symlink(directory, `${directory}/root/absolute`);
    engine.symlink('nowhere', `${directory}/root/dangling`);
    const root = engine.open(`${directory}/root`, open.path | open.directory);
    const opened = (path: string) => attempt(() => engine.close(engine.openBeneath(root, path, open.readOnly)));
    const results = {
      relative: opened('inside/escape'),
      dots: opened('../secret'),
      absolute: opened('absolute/secret'),
      magic: opened('/proc/self/root'),
    };
    const made = engine.makeDirectoriesBeneath(root, '../../x/../y//z', 0o711);
    const fine = {
      made: engine.status(`${directory}/root/y/z`)?.mode,
      outside: engine.status(`${directory}/y`) === undefined,
      dangling: attempt(() => engine.makeDirectoriesBeneath(root, 'dangling/x')),
      path: engine.readLink(descriptorPath(made)).endsWith('/root/y/z'),
    };
    engine.close(made);
    return { ...results, ...fine };
  },

  watchedFile(directory) {
    const [file, link] = [`${directory}/file`, `${directory}/link`];
    engine.writeFile(file, '');
    engine.symlink(file, link);
    const inotify = engine.openInotify();
    const buffer = new Uint8Array(256);
    const seen = () => {
      const bytes = engine.read(inotify, buffer);
      const event = new Int32Array(buffer.buffer, 0, 4);
      return bytes < 0 ? bytes : { bytes, number: event[0], mask: event[1], name: event[3] };
    };
    const results = {
      first: engine.watchFile(inotify, file),
      ofLink: engine.watchFile(inotify, link),
      quiet: seen(),
      missing: attempt(() => engine.watchFile(inotify, `${directory}/missing`)),
      wrong: attempt(() => engine.watchFile(0, file)),
    };
    engine.readText(file, 1);
    const onRead = seen();
    const fd = engine.open(link, open.writeOnly);
    engine.write(fd, engine.encodeUtf8('text'));
    const onWrite = seen();
    engine.close(fd);
    return { ...results, onRead, onWrite, onClose: seen() };
  },

  async receivesDescriptors(directory) {
    const listener = engine.listenUnix(`${directory}/socket`);
    const none = engine.accept(listener);
    const client = engine.connectUnix(`${directory}/socket`);
    const server = engine.accept(listener);
    const buffer = new Uint8Array(64);
    const nothing = engine.receive(server, buffer);
    engine.write(client, engine.encodeUtf8('hi'));
    const got = engine.receive(server, buffer);
    engine.close(client);
    const end = engine.receive(server, buffer);
    return { none, nothing, got, text: engine.decodeUtf8(buffer, 0, 2), end };
  },

  async refusedConnection() {
    const fd = engine.connectTcp('127.0.0.1', 1);
    await new Promise<void>((resolve) => {
      engine.watch(fd, ready.writable, () => {
        engine.unwatch(fd);
        resolve();
      });
    });
    const error = engine.socketError(fd);
    return {
      error,
      name: attempt(() => engine.connectTcp('localhost', 80)),
      port: attempt(() => engine.connectTcp('::1', 65_536)),
    };
  },

  async terminal() {
    const { master, slave } = engine.openPty();
    engine.setWindowSize(master, 91, 17);
    engine.spawn({
      argv: ['/bin/sh', '-c', 'stty size; test -t 0 && echo tty'],
      env: ['PATH=/usr/bin:/bin'],
      fds: [slave, slave, slave],
      newSession: true,
    });
    engine.close(slave);
    const buffer = new Uint8Array(1024);
    let text = '';
    return await new Promise((resolve) => {
      engine.watch(master, ready.readable, () => {
        try {
          const bytes = engine.read(master, buffer);
          if (bytes > 0) text += engine.decodeUtf8(buffer, 0, bytes);
        } catch (error) {
          engine.close(master);
          resolve({ text, end: codeOf(error) });
        }
      });
    });
  },

  text() {
    const bytes = Uint8Array.of(0x61, 0xff, 0x62, 0xed, 0xa0, 0x80, 0xf0, 0x9f, 0x98, 0x80);
    const all = Uint8Array.from({ length: 256 }, (_value, i) => i);
    const roundTrips = [0, 1, 2, 3, 4, 255, 256].every((length) => {
      const part = all.subarray(0, length);
      const back = engine.decodeBase64(engine.encodeBase64(part));
      return back.length === length && back.every((byte, i) => byte === part[i]);
    });
    return {
      lossy: engine.decodeUtf8(bytes),
      surrogate: [...engine.encodeUtf8('a\ud800b')],
      roundTrips,
      base64: engine.encodeBase64(engine.encodeUtf8('podvm')),
      unpadded: engine.decodeUtf8(engine.decodeBase64('cG9kdm0')),
      refused: ['====', 'A', 'AA=A', 'A A=', 'ä'].map((text) => attempt(() => engine.decodeBase64(text))),
      slice: engine.decodeUtf8(engine.encodeUtf8('abcdef'), 2, 3),
      outOfRange: attempt(() => engine.decodeUtf8(bytes, 3, 100)),
    };
  },

  capability() {
    const netRaw = 13; // root has this capability on every host, which is not true of all capabilities
    const has = () => {
      const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(engine.readText('/proc/self/status', 64 * 1024))?.[1] ?? '0';
      return (BigInt(`0x${line}`) >> BigInt(netRaw)) & 1n ? 'has' : 'has not';
    };
    engine.setCapability(netRaw, false);
    const given = has();
    engine.setCapability(netRaw, true);
    return { given, taken: has(), unknown: attempt(() => engine.setCapability(1000, true)) };
  },

  wrongArguments() {
    return [
      attempt(() => engine.close(-1)),
      attempt(() => engine.close(2 ** 31)),
      attempt(() => engine.close(any('1'))),
      attempt(() => engine.close(any({ valueOf: () => 1 }))),
      attempt(() => engine.read(0, any([1, 2]))),
      attempt(() => engine.read(0, any(new Uint16Array(4)))),
      attempt(() => engine.read(0, new Uint8Array(4), 5)),
      attempt(() => engine.write(1, new Uint8Array(4), 2, 3)),
      attempt(() => engine.write(1, new Uint8Array(4), -1)),
      attempt(() => engine.watch(0, 64, () => {})),
      attempt(() => engine.watch(0, 1, any('x'))),
      attempt(() => engine.kill(-1, 9)),
      attempt(() => engine.kill(0, 9)),
      attempt(() => engine.setRealtimeMs(NaN)),
      attempt(() => engine.mount('', '', '', 2 ** 33, '')),
      attempt(() => engine.mount('x', '/nonexistent', '', mountFlags.bind, '')),
      attempt(() => engine.addEntropy(new Uint8Array(2000))),
    ];
  },

  noEval() {
    // oxlint-disable-next-line no-eval, no-implied-eval -- this must fail
    return [attempt(() => (0, eval)('1')), attempt(() => new Function('return 1')())];
  },
};
