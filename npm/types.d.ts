/** What the broker sends, and what the client is told: the types of `client.js`. `docs/protocol.md` says what they mean. */

import type { BrokerError, Turn } from "./client.js";

/** How the connection is: `waiting` is between two attempts, `closed` until somebody connects. */
export type State = "closed" | "connecting" | "open" | "waiting";

/** How a turn is: `waiting` and `sending` until the broker has it, `refused` if it does not want it. */
export type TurnState = "waiting" | "sending" | "accepted" | "refused" | "ended";

/** Why a token is asked for: for a connection, after or before the last one expires, or since it was not taken. */
export type TokenReason = "connect" | "expired" | "expiring" | "refused";

export interface Options {
  /** The address of the socket, `ws:`, `wss:`, `http:` or `https:`. By default `ws` beside the page. */
  url?: string | URL;
  /**
   * Returns the token to show at each connect, or null. Calls that overlap share one answer. If it fails it is asked again after
   * a while, unless the error has `fatal: true` or the code `unauthenticated`.
   */
  getToken?: (about: { reason: TokenReason }) => string | null | undefined | Promise<string | null | undefined>;
  /** A class such as that of the package `ws`, where none is global. */
  WebSocket?: any;
  /** Time; `Date.now`, `setTimeout` and `clearTimeout` by default. */
  clock?: Clock;
  /** Numbers from 0 to below 1, for the delays; `Math.random` by default. */
  random?: () => number;
  /** Keeps what waits to be sent through a reload; `sessionStorage` by default, null for nothing. */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem"> | null;
  /** Milliseconds an answer may take; 30,000 by default. */
  timeout?: number;
  /** How many turns may wait to be sent (100), of how many characters together (1 MiB), and for how many milliseconds (an hour). */
  queue?: { count?: number; bytes?: number; age?: number };
}

export interface Clock {
  now(): number;
  setTimeout(call: () => void, ms: number): any;
  clearTimeout(timer: any): void;
}

export interface RequestOptions {
  /** Milliseconds the answer may take. */
  timeout?: number;
  /** Rejects the promise; what was asked for may be done all the same. */
  signal?: AbortSignal;
}

export interface ErrorData {
  code: string;
  message: string;
  retryable?: boolean;
  /** Seconds. */
  retry_after?: number;
  hint?: string;
  field?: string;
}

export interface StateChange {
  state: State;
  willRetry: boolean;
  /** The close code: the broker's, 1006 or 4000 for a line that broke or fell silent, 4500 where there is no token to be had. */
  code?: number;
  reason?: string;
  /** Milliseconds until it tries again; null: once the network, or the page, is back, or never. */
  delay?: number | null;
}

/** Data of the broker's `welcome`. */
export interface Welcome {
  connection_id: string;
  user: string | null;
  protocol: string;
  server: string;
  node: string;
  heartbeat: number;
  max_message_bytes: number;
}

/** Who sent something. */
export interface Author {
  connection_id: string | null;
  user: string | null;
}

/** A message of the broker that answers nothing. */
export interface Note {
  type: "notification";
  event: string;
  data: any;
  from?: Author;
  [more: string]: any;
}

/** One record of a session's log. */
export interface LogRecord extends Note {
  session_id: string;
  seq: number;
  at: string;
  turn_id?: string;
}

/** What somebody published in a room; `seq` only where the room has a history. */
export interface RoomEvent extends Note {
  room: string;
  from: Author;
  at: string;
  seq?: number;
  data: { event: string; data: any };
}

/** Where a log was entered. */
export interface Entered {
  epoch: string;
  head: number;
  recovered: boolean;
}

/** The answer to `session.attach`. */
export interface Attached extends Entered {
  session_id: string;
  floor: number;
  state: "open" | "closed";
  turn: any;
  queue: any[];
  approvals: any[];
  variables: { [name: string]: any };
}

export interface Member {
  connection_id: string;
  user: string | null;
}

/** The answer to `room.join`. */
export interface Joined extends Entered {
  room: string;
  members: Member[];
}

/** The answer to `turn.start`. A turn that was asked for by its id has only that. */
export interface Accepted {
  turn_id: string;
  seq: number;
  status: string;
  duplicate: boolean;
  durable: boolean;
}

/** Data of `turn.ended`. */
export interface Ended {
  outcome: "completed" | "cancelled" | "failed" | "timed_out" | "lost";
  partial: boolean;
  [more: string]: any;
}

/** Text, or blocks. */
export type Content = string | { type: string; [more: string]: any }[];

export interface SendOptions {
  /** What to do if a turn is running; `queue` by default. */
  ifBusy?: "queue" | "reject" | "interrupt";
  /** The ended turn that is tried again. */
  retryOf?: string;
  metadata?: object;
  clientMsgId?: string;
  /** Takes the turn back if it was not sent yet, and cancels it otherwise. */
  signal?: AbortSignal;
}

export interface SessionOptions {
  agent?: string;
  title?: string;
  workspace_dir?: string;
  variables?: object;
  session_id?: string;
  ephemeral?: boolean;
}

/** Which page of a list is wanted. */
export interface List {
  limit?: number;
  cursor?: string;
}

/** Which page of a history is wanted: the one before a number, or else the newest. */
export interface Page {
  beforeSeq?: number;
  limit?: number;
  kind?: "records" | "messages";
}

/** A page, oldest first, of `records`, `messages` or `events`; `before_seq` leads to the one before it. */
export interface PageOfHistory {
  records: LogRecord[];
  messages: any[];
  events: any[];
  before_seq?: number;
}

/** Where to follow a session from. */
export interface From {
  /** The last record one has: 0 for none, -1 to want only what is to come. By default what this object has seen. */
  afterSeq?: number;
  epoch?: string;
}

export interface BrokerEvents {
  state: StateChange;
  welcome: Welcome;
  /** What belongs to no session and no room that is followed. */
  notification: Note;
  /** A refusal that answers no request. */
  error: BrokerError;
}

interface FollowedEvents {
  /** Forget what you have: all there is comes again, or, in a room, something is missed for good. */
  reset: Entered & { floor: number };
  /** It is followed no longer, since it is gone or may not be seen. */
  gone: BrokerError;
  /** It could not be entered, and is tried again; or records are missing in the log. */
  problem: BrokerError;
}

export interface SessionEvents extends FollowedEvents {
  record: LogRecord;
  attached: Attached;
  caughtup: { head: number };
  /** What was sent and is not in the log yet. */
  outbox: Turn[];
}

export interface RoomEvents extends FollowedEvents {
  event: RoomEvent;
  joined: Joined;
}

/** Calls `listener(detail)` at each event `name`, until `signal` aborts. */
export type On<Events> = <Name extends keyof Events & string>(
  name: Name,
  listener: (detail: Events[Name]) => void,
  options?: { signal?: AbortSignal; once?: boolean },
) => void;

// -- methods -----------------------------------------------------------------------------------------

/** Asks the broker something; returns the answer's data. Throws a BrokerError, or what the signal was aborted with. */
export type Request = (action: string, payload?: any, options?: RequestOptions) => Promise<any>;

/** Your own sessions, newest first. */
export type Sessions = (page?: List) => Promise<{ sessions: any[]; cursor?: string }>;

/** Follows the log, now and after every reconnect. */
export type Attach = (from?: From) => Promise<Attached>;

/** Starts a turn as soon as there is a connection. A session that is not attached is followed from then on. */
export type Send = (content: Content, options?: SendOptions) => Turn;

/** Answers an agent's question. */
export type Answer = (approvalId: string, optionId: string) => Promise<{ resolved_by: any; option_id: string }>;

/** Variables are merged, and one that is null is removed. */
export type Update = (change: { title?: string; variables?: object }) => Promise<{ head: number }>;

export type History = (page?: Page) => Promise<PageOfHistory>;

/**
 * Joins a room, now and after every reconnect: for events of some names or of all, after the last one has, `afterSeq: 0` for all
 * that the room remembers, by default for those to come.
 */
export type Join = (wanted?: { events?: string[]; afterSeq?: number }) => Promise<Joined>;

/** Tells everybody in the room, ourselves included; one need not have joined. */
export type Publish = (event: string, data?: any) => Promise<{ seq?: number; delivered: number }>;

/** Who is in the room. */
export type Presence = () => Promise<Member[]>;
