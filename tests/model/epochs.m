-- SPDX-License-Identifier: BSD-3-Clause
--
-- epochs.m - one view after another, and the leases of one process: SAFETY 17 when its majority and the next
-- view's need have nobody in common. In Murphi, for the model checker rumur; tests/model/run gives it
--
--   NODES     processes; VOTERS of them are the first view, the others can be promoted once
--   VOTERS
--   EPOCHS    views, the first one included
--   LEASE     ticks that a lease runs
--   PROPERTY  0: everything must hold; 2 and 3: that something never happens which must be
--             able to happen, or the model proves nothing
--   BROKEN    0, or the number of a mistake that must be found; the script names them
--
-- What agreement.m shows is taken for granted here: each epoch gets at most one view, when a majority of the
-- voters before has accepted it; and in true time a lease is over with its holder no later than with its
-- giver. So one view is proposed for each epoch, and one clock is enough. The rest is as in agreement.m: a
-- process that is dead, cut off or dropped makes no more steps, and one of them, the victim, has leases. A
-- process that returns is another one; it votes from its promotion on.

type
  node: scalarset(NODES);
  epoch: 1..EPOCHS;
  next_epoch: 2..EPOCHS;
  epoch_or_none: 0..EPOCHS;
  time: 0..LEASE;
  count: 0..NODES;

var
  victim: node;
  view: array[epoch] of array[node] of boolean; -- its voters
  proposed: array[next_epoch] of boolean;
  is_decided: array[epoch] of boolean;

  at: array[node] of epoch_or_none; -- the view that it is in
  told: array[node] of boolean;     -- that it accepted the next one
  given: array[node] of time;       -- what the lease given to the victim has left; its own: what it can have
  held: array[node] of time;        -- of which the victim counts as much in its present view,
  kept: time;                       -- and this from views before
  age: array[node] of time;         -- since it entered its view, up to a lease

function voters(e: epoch): count;
var c: count;
begin
  c := 0;
  for n: node do
    if view[e][n] then c := c + 1; end;
  end;
  return c;
end;

function stay(e: next_epoch): count;
var c: count;
begin
  c := 0;
  for n: node do
    if view[e][n] & view[e - 1][n] then c := c + 1; end;
  end;
  return c;
end;

function accepted(e: next_epoch): count;
var c: count;
begin
  c := 0;
  for n: node do
    if view[e - 1][n] & at[n] = e - 1 & told[n] then c := c + 1; end;
  end;
  return c;
end;

-- How long a majority of the voters of the victim's view gives it a lease yet, itself counted.
function lease(): time;
var c: count; best: time;
begin
  if at[victim] = 0 | !view[at[victim]][victim] then return 0; end;
  best := kept;
  for t: 1..LEASE do
    c := 0;
    for n: node do
      if view[at[victim]][n] & (n = victim | held[n] >= t) then c := c + 1; end;
    end;
    if 2 * c > voters(at[victim]) & t > best then best := t; end;
  end;
  return best;
end;

function drops_victim(e: next_epoch): boolean;
begin
  return view[e - 1][victim] & !view[e][victim];
end;

ruleset v: node; late: node do
  startstate
  begin
    victim := v;
    for n: node do
      for e: epoch do
        view[e][n] := e = 1 & (VOTERS = NODES | n != late);
      end;
      at[n] := view[1][n] ? 1 : 0;
      told[n] := false;
      given[n] := 0;
      held[n] := 0;
      age[n] := LEASE;
    end;
    for e: epoch do is_decided[e] := e = 1; end;
    for e: next_epoch do proposed[e] := false; end;
    kept := 0;
  end;
end;

rule "tick" true ==>
begin
  for n: node do
    if given[n] > 0 then given[n] := given[n] - 1; end;
    if held[n] > 0 then held[n] := held[n] - 1; end;
    if age[n] < LEASE then age[n] := age[n] + 1; end;
  end;
  if kept > 0 then kept := kept - 1; end;
end;

ruleset e: next_epoch do
  rule "propose" !proposed[e] & is_decided[e - 1] ==>
  begin
    proposed[e] := true;
    view[e] := view[e - 1];
  end;
end;

-- Any view of which a majority of the present voters is part can be proposed.
ruleset e: next_epoch; n: node do
  rule "leave out" proposed[e] & !is_decided[e] & accepted(e) = 0 & view[e][n] & view[e - 1][n] &
    2 * (stay(e) - 1) > voters(e - 1) ==>
  begin
    view[e][n] := false;
  end;

  rule "promote" proposed[e] & !is_decided[e] & accepted(e) = 0 &
    forall f: epoch do f > e | !view[f][n] end ==>
  begin
    view[e][n] := true;
  end;
end;

ruleset n: node do
  rule "accept"
    at[n] != 0 & at[n] < EPOCHS & view[at[n]][n] & !told[n] & proposed[at[n] + 1] & !is_decided[at[n] + 1] &
    (!drops_victim(at[n] + 1) |
      (given[n] = 0 & (n = victim | BROKEN = 20 | at[n] = 1 | age[n] = LEASE))) ==>
  begin
    told[n] := true;
    if 2 * accepted(at[n] + 1) > voters(at[n]) then is_decided[at[n] + 1] := true; end;
  end;

  -- HEARTBEAT and GRANT between two voters of one view, of which neither has told that it accepted the next.
  rule "lease"
    n != victim & held[n] < LEASE & at[n] != 0 & at[victim] = at[n] & view[at[n]][n] & view[at[n]][victim] &
    (!told[n] | (BROKEN = 21 & !drops_victim(at[n] + 1))) &
    (!told[victim] | (BROKEN = 22 & !drops_victim(at[n] + 1))) ==>
  begin
    given[n] := LEASE;
    given[victim] := LEASE;
    held[n] := LEASE;
  end;
end;

ruleset n: node; e: next_epoch do
  rule "enter" at[n] < e & is_decided[e] & view[e][n] ==>
  begin
    if n = victim then
      kept := lease();
      for m: node do held[m] := 0; end;
    end;
    at[n] := e;
    told[n] := false;
    age[n] := 0;
  end;
end;

-- A voter that is in an old view may answer reads as long as all later ones have it.
ruleset e: next_epoch do
  invariant "whom a view drops has no lease"
    !is_decided[e] | at[victim] >= e | lease() = 0 | view[e][victim];
end;

invariant "the last view has the victim"
  PROPERTY != 2 | !is_decided[EPOCHS] | view[EPOCHS][victim];

invariant "no lease is kept from a view before"
  PROPERTY != 3 | kept = 0;
