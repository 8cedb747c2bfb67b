-- SPDX-License-Identifier: BSD-3-Clause
--
-- agreement.m - how the voters of one view agree on the next one, and the leases of one of them: Paxos and
-- SAFETY 17, 20. In Murphi, for the model checker rumur; tests/model/run gives it the constants
--
--   NODES     voters
--   BALLOTS   how many ballots there can be, each by any proposer, several at a time
--   TIME      2: each node has a clock, and every packet of a lease counts; 1: one clock for all, and a lease
--             is given in one step; 0: a lease may run out at any time, which is more than any clocks can do
--   PROPERTY  0: everything must hold; 1: only "one view in an epoch", without leases; 2 to 4: that something
--             never happens which must be able to happen, or the model proves nothing
--   BROKEN    0, or the number of a mistake that must be found; the script names them
--
-- What is left out, and why nothing is lost by it:
--   * A packet that was sent can be received for ever, in any order, any number of times, by each receiver
--     or by none. So the model has no network: a packet is the state that it leaves behind.
--   * A node that crashed, was cut off or is slow is one that makes no more steps. When it restarts it is
--     another incarnation and no acceptor of this instance (BROKEN 15: it is).
--   * Suspicion does not appear: every view may be proposed at any time.
--   * One voter, the victim, has leases. Others have theirs too, but the only thing that a lease ever does
--     is to delay a view that drops its holder. So of all views only two are told apart, one that drops the
--     victim and one that keeps it.
--   * A process that is in the next view already gives no lease to one that is not, so nobody enters.

const
  LEASE: TIME = 2 ? 4 : (TIME = 1 ? 2 : 1); -- ticks that a lease is asked for
  MARGIN: TIME < 2 ? 0 : (BROKEN = 1 ? 1 : 2); -- what the holder takes off: twice the drift
  HELD: LEASE - MARGIN;

type
  node: scalarset(NODES);
  ballot: 1..BALLOTS;
  ballot_or_none: 0..BALLOTS;
  time: 0..4;

var
  victim: node;

  -- Acceptors.
  promised: array[node] of ballot_or_none;
  accepted: array[node] of ballot_or_none;
  told: array[ballot] of array[node] of boolean;      -- ACCEPTED was sent
  promise: array[ballot] of array[node] of boolean;   -- PROMISE was sent,
  with: array[ballot] of array[node] of ballot_or_none; -- and named this acceptance

  -- Proposals.
  proposed: array[ballot] of boolean;                 -- ACCEPT was sent
  drops: array[ballot] of boolean;                    -- its view drops the victim

  -- Leases of the victim, by giver. Times count down on the clock of whom they belong to.
  asked: array[node] of time;   -- HEARTBEAT that the giver may receive: what is left for the holder
  grant: array[node] of time;   -- GRANT that the victim may receive: the same
  held: array[node] of time;    -- in the victim's books
  given: array[node] of time;   -- in the giver's books; the victim's own: what it can still have
  ahead: array[node] of 0..1;   -- ticks that its clock is before the slowest one

function majority(count: 0..NODES): boolean;
begin
  return BROKEN = 4 ? count > 0 : 2 * count > NODES;
end;

function is_decided(b: ballot): boolean;
var count: 0..NODES;
begin
  count := 0;
  for n: node do
    if told[b][n] then count := count + 1; end;
  end;
  return proposed[b] & majority(count);
end;

function has_lease(): boolean;
var count: 0..NODES;
begin
  count := 0;
  for n: node do
    if n = victim | held[n] > 0 then count := count + 1; end;
  end;
  return 2 * count > NODES;
end;

function told_any(n: node): boolean;
begin
  return exists b: ballot do told[b][n] end;
end;

function accepted_to_drop(n: node): boolean;
begin
  return accepted[n] != 0 & drops[accepted[n]];
end;

-- An acceptor that told of an acceptance gives and asks no more, one that accepted to drop the victim
-- neither for it.
function may_lease(n: node): boolean;
begin
  return BROKEN = 17 | (!told_any(n) & !accepted_to_drop(n));
end;

-- A proposer's view must be `drop` or may be: whether a majority of promises says so. That which was
-- accepted at ballot t is adopted when it is the newest in some majority.
function may_propose(b: ballot; drop: boolean): boolean;
var count: 0..NODES; newest: boolean;
begin
  for t: 0..BALLOTS do
    count := 0;
    newest := t = 0;
    for n: node do
      if promise[b][n] & (with[b][n] <= t | BROKEN = 37) then
        count := count + 1;
        if with[b][n] = t then newest := true; end;
      end;
    end;
    if newest & majority(count) & (t = 0 | drops[t] = drop) then return true; end;
  end;
  return false;
end;

procedure tell(n: node);
begin
  -- When may an acceptance be told? When no lease to whom it drops can run any more.
  if !drops[accepted[n]] | given[n] = 0 | BROKEN = 14 | (BROKEN = 19 & n = victim) then
    told[accepted[n]][n] := true;
  end;
end;

ruleset v: node do
  startstate
  begin
    victim := v;
    for b: ballot do
      proposed[b] := false;
      drops[b] := false;
      for n: node do
        told[b][n] := false;
        promise[b][n] := false;
        with[b][n] := 0;
      end;
    end;
    for n: node do
      promised[n] := 0;
      accepted[n] := 0;
      asked[n] := 0;
      grant[n] := 0;
      held[n] := 0;
      given[n] := 0;
      ahead[n] := 0;
    end;
  end;
end;

procedure pass(n: node);
begin
  if given[n] > 0 then given[n] := given[n] - 1; end;
  if n = victim then
    for g: node do
      if held[g] > 0 then held[g] := held[g] - 1; end;
      -- A lease counts from its sending. BROKEN 12: from the arrival of its grant, however late.
      if BROKEN != 12 then
        if asked[g] > 0 then asked[g] := asked[g] - 1; end;
        if grant[g] > 0 then grant[g] := grant[g] - 1; end;
      end;
    end;
  end;
end;

rule "tick" TIME = 1 ==>
begin
  for n: node do pass(n); end;
end;

ruleset n: node do

  -- Clocks: over any time two of them differ by two ticks at most, as MARGIN says.
  rule "tick of one clock" TIME = 2 & (ahead[n] = 0 | forall m: node do m = n | ahead[m] = 1 end) ==>
  begin
    pass(n);
    if ahead[n] = 0 then
      ahead[n] := 1;
    else
      for m: node do ahead[m] := m = n ? 1 : 0; end;
    end;
  end;

  rule "HEARTBEAT" TIME = 2 & n != victim & asked[n] < HELD & may_lease(victim) ==>
  begin
    asked[n] := HELD;
    given[victim] := LEASE;
  end;

  rule "HEARTBEAT arrives" TIME = 2 & asked[n] > 0 & may_lease(n) ==>
  begin
    given[n] := LEASE;
    if grant[n] < asked[n] then grant[n] := asked[n]; end;
  end;

  rule "GRANT arrives" TIME = 2 & grant[n] > held[n] ==>
  begin
    held[n] := grant[n];
  end;

  rule "lease" TIME < 2 & PROPERTY != 1 & n != victim & held[n] < LEASE & may_lease(n) & may_lease(victim) ==>
  begin
    given[n] := LEASE;
    held[n] := LEASE;
    if BROKEN != 18 then given[victim] := LEASE; end;
  end;

  rule "lease is over" TIME = 0 & held[n] > 0 ==>
  begin
    given[n] := 0;
    held[n] := 0;
    if forall m: node do held[m] = 0 end then given[victim] := 0; end;
  end;

  rule "restart" BROKEN = 15 & promised[n] > 0 ==>
  begin
    promised[n] := 0;
    accepted[n] := 0;
    given[n] := 0;
    if n = victim then
      for g: node do held[g] := 0; end;
    end;
  end;

  rule "tell" accepted[n] != 0 & !told[accepted[n]][n] ==>
  begin
    tell(n);
  end;
end;

ruleset b: ballot; n: node do

  -- A PREPARE that arrives after the ACCEPT has nothing to say any more.
  rule "PREPARE arrives" promised[n] < b & !proposed[b] ==>
  begin
    promised[n] := b;
    promise[b][n] := true;
    with[b][n] := accepted[n];
  end;

  rule "ACCEPT arrives" proposed[b] & promised[n] <= b & accepted[n] != b ==>
  begin
    -- BROKEN 18: a dropped voter's leases end a lease's length after it first accepted anything.
    if BROKEN = 18 & n = victim & may_lease(n) then given[n] := LEASE; end;
    promised[n] := b;
    accepted[n] := b;
  end;
end;

ruleset b: ballot; drop: boolean do
  rule "propose" !proposed[b] & may_propose(b, drop) ==>
  begin
    proposed[b] := true;
    drops[b] := drop;
  end;
end;

invariant "one view in an epoch"
  forall a: ballot do forall b: ballot do is_decided(a) & is_decided(b) -> drops[a] = drops[b] end end;

invariant "whom the view drops has no lease"
  forall b: ballot do is_decided(b) & drops[b] -> !has_lease() end;

invariant "no view drops the victim"
  PROPERTY != 2 | forall b: ballot do !is_decided(b) | !drops[b] end;

invariant "no two ballots decide"
  PROPERTY != 3 | forall a: ballot do forall b: ballot do a = b | !is_decided(a) | !is_decided(b) end end;

invariant "the victim has no lease"
  PROPERTY != 4 | !has_lease();
