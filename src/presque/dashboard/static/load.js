// Something that a view asks the server for: as it is, while it is on its way, or why it did not come.

import { Away, Refused, said } from "./api.js";
import { connection, lost, paused } from "./live.js";
import { acted } from "./parts/notes.js";
import { useEffect, useRef, useState } from "./ui.js";

/**
 * @template T
 * @typedef {{value: T|null, error: string, status: number, loading: boolean, again: () => void, set: (value: T) => void}} Loaded
 */

/**
 * Grows when `value` has changed, at most once in `every` ms, and not while the viewer's hand is on what would move.
 * @param {unknown} value
 * @param {number} every
 * @param {boolean} [held]
 */
export function useTurn(value, every, held = false) {
  const [turn, setTurn] = useState(0);
  const now = useRef({ value, held, seen: value });
  now.current.value = value;
  now.current.held = held;
  useEffect(() => {
    const timer = setInterval(() => {
      const state = now.current;
      if (state.held || state.seen === state.value) return;
      state.seen = state.value;
      setTurn((last) => last + 1);
    }, every);
    return () => clearInterval(timer);
  }, [every]);
  return turn;
}

/**
 * Asks when the view appears and whenever one of `on` changes; then again every `every` ms, if that is given, unless the
 * tab is hidden or the viewer has paused. What came before stays until the next answer is there.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} ask
 * @param {readonly unknown[]} on
 * @param {number} [every]
 * @returns {Loaded<T>}
 */
export function useLoaded(ask, on, every = 0) {
  const [found, setFound] = useState(
    /** @type {{value: T|null, error: string, status: number, loading: boolean, on: readonly unknown[]}} */
    ({ value: null, error: "", status: 0, loading: true, on }),
  );
  const [turn, setTurn] = useState(0);
  const asking = useRef(ask);
  asking.current = ask;
  const { state } = connection.value;

  useEffect(() => {
    const gone = new AbortController();
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    let timer;
    const run = async () => {
      try {
        const value = await asking.current(gone.signal);
        if (gone.signal.aborted) return;
        setFound({ value, error: "", status: 200, loading: false, on });
      } catch (error) {
        if (gone.signal.aborted) return;
        if (error instanceof Away) lost(error);
        if (error instanceof Refused && error.status === 401) lost(error);
        const status = error instanceof Refused ? error.status : 0;
        setFound((last) => ({ ...last, error: said(error), status, loading: false, on }));
        if (status === 404 || status === 403) return; // it will be the same the next time
      }
      if (every) timer = setTimeout(next, every);
    };
    const next = () => {
      if (document.hidden || paused.peek() || connection.peek().state === "away") timer = setTimeout(next, every);
      else run();
    };
    run();
    return () => {
      gone.abort();
      clearTimeout(timer);
    };
  }, [...on, turn, every, state === "live", acted.value]);

  const stale = on.length !== found.on.length || on.some((value, index) => value !== found.on[index]);
  return {
    value: found.value,
    error: stale ? "" : found.error,
    status: stale ? 0 : found.status,
    loading: found.loading || stale,
    again: () => setTurn((last) => last + 1),
    set: (value) => setFound((last) => ({ ...last, value, error: "" })),
  };
}
