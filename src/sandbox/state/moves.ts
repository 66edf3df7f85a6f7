import { PodvmError } from '#base/errors.ts';

/** A state that only moves as its table allows. An illegal move is a bug: it throws and changes nothing. */
export interface Moves<State extends string> {
  readonly state: State;
  moveTo(next: State, why: string): void;
}

export function createMoves<State extends string>(
  what: string,
  table: Readonly<Record<State, readonly State[]>>,
  first: State,
  onMove: (next: State, why: string) => void = () => {},
): Moves<State> {
  let state = first;
  return {
    get state() {
      return state;
    },
    moveTo(next, why) {
      if (!table[state].includes(next)) {
        throw new PodvmError('internal', `Cannot move ${what} from ${state} to ${next} (${why}): no such move`);
      }
      state = next;
      onMove(next, why);
    },
  };
}
