-- SPDX-License-Identifier: BSD-3-Clause
--
-- founding.m - first views from what hosts' stores hold, of a majority: SAFETY 34. In Murphi, for the model checker
-- rumur; tests/model/run gives it
--
--   NODES     configured members
--   VIEWS     first views; number 1 is that of a generation in which all members are at the beginning
--   LIVES     processes of a node, one after the other
--   PROPERTY  0: everything must hold; 2: that something never happens which must be able to happen
--   BROKEN    0, or the number of a mistake that must be found; the script names them
--
-- A process accepts one first view; whoever knows that all it names have accepted is in it. Views that follow a first
-- one change nothing here: they are of the same generation, and serve with leases of a majority of all members as well.
-- A process in a view that hears of a later generation would leave it: that it need not is more than can happen.

type
  node: scalarset(NODES);
  view: 1..VIEWS;
  view_or_none: 0..VIEWS;
  life: 1..LIVES;
  life_or_none: 0..LIVES;
  generation: 0..VIEWS;
  count: 0..NODES;

var
  used: array[view] of boolean;
  of_generation: array[view] of generation;
  named: array[view] of array[node] of life_or_none;
  told: array[view] of array[node] of boolean; -- it said that it accepts

  is: array[node] of life;                -- the process that runs
  accepted: array[node] of view_or_none;  -- by it
  entered: array[node] of boolean;        -- it is in the view that it accepted
  stored: array[node] of generation;      -- the newest that its store knows of, which outlives it
  lease: array[view] of array[node] of boolean; -- given by a process of the node, and not over

function members(v: view): count;
var c: count;
begin
  c := 0;
  for n: node do
    if named[v][n] != 0 then c := c + 1; end;
  end;
  return c;
end;

-- Whether somebody in the view has a lease: its own and those of others make a majority of all members.
function serves(v: view): boolean;
var c: count;
begin
  for h: node do
    if entered[h] & accepted[h] = v then
      c := 0;
      for n: node do
        if n = h | lease[v][n] then c := c + 1; end;
      end;
      if 2 * c > NODES | BROKEN = 32 then return true; end;
    end;
  end;
  return false;
end;

function is_entered(v: view): boolean;
begin
  return used[v] & exists n: node do entered[n] & accepted[n] = v end;
end;

startstate
begin
  for v: view do
    used[v] := v = 1;
    of_generation[v] := v = 1 ? 1 : 0;
    for n: node do
      named[v][n] := v = 1 ? 1 : 0;
      told[v][n] := v = 1;
      lease[v][n] := false;
    end;
  end;
  for n: node do
    is[n] := 1;
    accepted[n] := 1;
    entered[n] := true;
    stored[n] := 1;
  end;
end;

-- Any process that is fresh proposes, for itself (p) and others that are, without two at most.
ruleset v: 2..VIEWS; p: node; a: node; b: node; all: boolean do
  rule "propose"
    !used[v] & used[v - 1] & accepted[p] = 0 & a != p & b != p &
    (forall n: node do (!all & (n = a | n = b)) | accepted[n] = 0 end)
    ==>
    var g: generation;
  begin
    used[v] := true;
    g := 0;
    for n: node do
      if all | (n != a & n != b) then
        named[v][n] := is[n];
        if stored[n] > g then g := stored[n]; end;
      end;
    end;
    of_generation[v] := g < VIEWS ? g + 1 : g;
    if 2 * members(v) <= NODES & BROKEN != 31 then
      for n: node do named[v][n] := 0; end;
      of_generation[v] := 0;
      used[v] := false;
    end;
  end;
end;

ruleset v: view; n: node do
  -- What leaves somebody out is accepted when the leases of a process before are over.
  rule "accept"
    used[v] & accepted[n] = 0 & named[v][n] = is[n] & of_generation[v] > stored[n] &
    (BROKEN = 33 | members(v) = NODES | forall w: view do !lease[w][n] end)
    ==>
  begin
    accepted[n] := v;
  end;

  rule "tell"
    used[v] & accepted[n] = v & !told[v][n] & named[v][n] = is[n] & (stored[n] = of_generation[v] | BROKEN = 30)
    ==>
  begin
    told[v][n] := true;
  end;

  rule "enter"
    used[v] & accepted[n] = v & !entered[n] & forall m: node do named[v][m] = 0 | told[v][m] end
    ==>
  begin
    entered[n] := true;
  end;

  rule "give a lease" entered[n] & accepted[n] = v & !lease[v][n] ==>
  begin
    lease[v][n] := true;
  end;

  rule "a lease is over" lease[v][n] ==>
  begin
    lease[v][n] := false;
  end;
end;

ruleset n: node do
  rule "store" accepted[n] != 0 & stored[n] < of_generation[accepted[n]] ==>
  begin
    stored[n] := of_generation[accepted[n]];
  end;

  rule "restart" is[n] < LIVES ==>
  begin
    is[n] := is[n] + 1;
    accepted[n] := 0;
    entered[n] := false;
  end;
end;

invariant "one first view in a generation"
  PROPERTY != 0 |
  forall v: view do
    forall w: view do
      v = w | !is_entered(v) | !is_entered(w) | of_generation[v] != of_generation[w]
    end
  end;

invariant "one generation serves"
  PROPERTY != 0 |
  forall v: view do forall w: view do v = w | !used[v] | !used[w] | !serves(v) | !serves(w) end end;

invariant "no view but the first serves"
  PROPERTY != 2 | forall v: view do v = 1 | !used[v] | !serves(v) end;
