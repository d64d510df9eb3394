/* The base exchange between two honest gateways, and how they come together again (IDENTITY.md, sections 4 and 6).

   Both initiate, either may stop and start again once, with CLOSE or without, and either may lose patience. The network
   is a set of messages that only grows: whatever was said can come late, again, out of order, from before a restart, or
   not until everything else is over. So a run ends only when every message that still counts has come through, and
   `settles` asks for no more than that.

   A try is one I1 with a DH key of its own, and at most one I2. Its number names the key that both sides would derive,
   because #I, #J and both DH values hang on that I2. A key is begun where its sequence numbers start at 1: where it is
   installed. No side has user traffic; what heals here must not wait for any.

   rule      section            what it says                                                            breaks
   ONCE      4 "once"           each #I is accepted once                                                nonce
   SAME      4 "once"           a repeat of the last I2 gets the same R2 from memory and nothing else   agree, nonce
   LIVING    4 "Responder"      a #I counts in a living generation alone, and its DH key dies with it   nonce
   LATE_R2   4 "Simultaneous"   R2 counts in I2-SENT alone (RFC 7401, 4.4.4)                            nonce
   FIRST     4 "Keys"           the responder has installed when R2 leaves                              inbound
   HOLD      4 "Keys"           the responder sends nothing before it has opened one packet             inbound
   PROBE     4 "Keys"           the initiator sends a probe as soon as it has installed                 settles
   TIE       4 "Simultaneous"   a smaller HIT drops I1 in I1-SENT and I2-SENT, and I2 in I2-SENT        settles
   RETRY     4 "Retransmit"     a try without an end is given up, and another begins with I1            settles
   SILENCE   4 "replaces it"    who has said something under new keys and hears nothing begins anew     settles
   AT_START  4 "replaces it"    a gateway sends I1 at its start                                         settles
   OWN_CLOSE 6 "CLOSE"          a CLOSE that the association's own keys do not verify does nothing      settles

   Not here: contents and order of checks, puzzles' difficulty, paths, relays, SPI_TAKEN, limits of rate and memory. */

#ifndef ONCE
#define ONCE 1
#endif
#ifndef SAME
#define SAME 1
#endif
#ifndef LIVING
#define LIVING 1
#endif
#ifndef LATE_R2
#define LATE_R2 1
#endif
#ifndef FIRST
#define FIRST 1
#endif
#ifndef HOLD
#define HOLD 1
#endif
#ifndef PROBE
#define PROBE 1
#endif
#ifndef TIE
#define TIE 1
#endif
#ifndef RETRY
#define RETRY 1
#endif
#ifndef SILENCE
#define SILENCE 1
#endif
#ifndef AT_START
#define AT_START 1
#endif
#ifndef OWN_CLOSE
#define OWN_CLOSE 1
#endif

#ifndef TRIES
#define TRIES 6         /* of a side; the last ones are there for `settles`, which fails where they do not suffice */
#endif
#ifndef STORM
#define STORM 1         /* that many tries may be given up at any time and may meet an old R1; later ones wait */
#endif
#ifndef RESTARTS
#define RESTARTS 1      /* of each side */
#endif
#ifndef PASSES
#define PASSES 0        /* generations that pass at each side without a restart */
#endif

#define SMALLER 0       /* the side with the smaller HIT */
#define NONE 255
#define KEY(side, n) ((side) * TRIES + (n))
#define HAS(set, n) (((set) >> (n)) & 1)
#define ADD(set, n) set = (set) | (1 << (n))
#define peer (1 - me)

/* The network. Sets of keys are bits, because this is what a state consists of. */
bool i1[2];             /* by sender: I1s are all alike */
byte r1[2];             /* by sender: a set of generations */
byte i2[2 * TRIES];     /* by key: the generation of its #I, plus 1 */
short r2[2];            /* by the responder's SPI, first or second that it drew: a set of keys */
short fromInitiator, fromResponder;     /* sealed packets: sets of keys */
short closes[2];        /* by sender: a set of keys whose HIP keys made the MAC */

/* What a side knows. */
mtype = { OFF, IDLE, I1_SENT, I2_SENT };
mtype state[2] = OFF;   /* as initiator; ESTABLISHED and R2-SENT are IDLE with a key that was heard under, or was not */
byte tries[2];
byte generation[2];
short used[2];          /* accepted #I, by their keys; forgotten with the generation */
byte key[2] = NONE;     /* of the association */
bool spi[2];            /* the responder's SPI in it */
bool heard[2];          /* has opened a packet under it */
bool due[2];            /* its timer has run out */
byte restarts[2], passes[2];

/* What went wrong, and what nobody forgets. */
short begun[2];         /* keys that a side has installed, ever */
bool twice, early;

#define mine (key[me] != NONE && key[me] / TRIES == me)
#define dropsAsSmaller(busy) (TIE && me == SMALLER && (busy))

inline begin() {
  if
  :: HAS(begun[me], key[me]) -> twice = true
  :: else -> ADD(begun[me], key[me])
  fi
}

inline initiate() { state[me] = I1_SENT; tries[me]++; i1[me] = true; due[me] = false }

/* What a side would do if its timer ran out. */
#define unanswered(side) (RETRY && (state[side] == I1_SENT || state[side] == I2_SENT))
#define unheard(side) (SILENCE && state[side] == IDLE && key[side] != NONE && !heard[side] && \
  (PROBE || key[side] / TRIES != side))
#define waits(side) ((unanswered(side) || unheard(side)) && tries[side] < TRIES)

/* I2 number n of the peer, as a responder sees it; the last one again is answered by R2, which is in the network. */
#define known(n) (key[me] == KEY(peer, n))
#define takes(n) (state[me] != OFF && i2[KEY(peer, n)] && \
  (!LIVING || i2[KEY(peer, n)] == generation[me] + 1) && \
  (known(n) -> !SAME : (!ONCE || !HAS(used[me], KEY(peer, n)))) && \
  !dropsAsSmaller(state[me] == I2_SENT))

inline take(n) {
  d_step {
    /* The SPI is drawn for this R2; only an I2 that is answered anew has had another. */
    spi[me] = (HAS(r2[0], KEY(peer, n)) -> 1 : 0);
    state[me] = IDLE; key[me] = KEY(peer, n); heard[me] = false; due[me] = false; ADD(used[me], key[me]);
    if
    :: FIRST -> begin()
    :: else
    fi;
    ADD(r2[spi[me]], key[me])
  };
  if
  :: FIRST
  :: !FIRST -> d_step { begin() }
  fi
}

inline establish(which) {
  key[me] = KEY(me, tries[me] - 1); spi[me] = which; state[me] = IDLE; heard[me] = false; due[me] = false;
  begin();
  if
  :: PROBE -> ADD(fromInitiator, key[me]); if :: HAS(begun[peer], key[me]) :: else -> early = true fi
  :: else
  fi
}

inline forget() { key[me] = NONE; spi[me] = 0; heard[me] = false; due[me] = false }

proctype Side(byte me) {
end:
  do
  /* A start, at any time. Without AT_START somebody at one side wants the other, once. */
  :: state[me] == OFF -> d_step {
       state[me] = IDLE;
       if :: AT_START || (me == 0 && !restarts[me]) -> initiate() :: else fi
     }
  :: state[me] != OFF && restarts[me] < RESTARTS -> atomic {
       restarts[me]++;
       if
       :: key[me] != NONE -> ADD(closes[me], key[me])
       :: true
       fi;
       d_step { forget(); used[me] = 0; generation[me]++; state[me] = OFF }
     }
  :: state[me] != OFF && passes[me] < PASSES -> d_step { passes[me]++; used[me] = 0; generation[me]++ }

  /* The initiator. Who is out of patience begins anew, and nothing of the old try counts any more. */
  :: state[me] == I1_SENT && HAS(r1[peer], generation[peer]) -> d_step {
       i2[KEY(me, tries[me] - 1)] = generation[peer] + 1; state[me] = I2_SENT
     }
  :: state[me] == I1_SENT && tries[me] <= STORM && generation[peer] && HAS(r1[peer], generation[peer] - 1) -> d_step {
       i2[KEY(me, tries[me] - 1)] = generation[peer]; state[me] = I2_SENT
     }
  :: state[me] == I2_SENT && HAS(r2[0], KEY(me, tries[me] - 1)) -> d_step { establish(0) }
  :: state[me] == I2_SENT && HAS(r2[1], KEY(me, tries[me] - 1)) -> d_step { establish(1) }
  :: !LATE_R2 && state[me] == IDLE && mine && key[me] == KEY(me, tries[me] - 1) -> d_step { establish(spi[me]) }
  :: waits(me) && (due[me] || tries[me] <= STORM) -> d_step { initiate() }

  /* The responder. */
  :: state[me] != OFF && i1[peer] && !HAS(r1[me], generation[me]) &&
     !dropsAsSmaller(state[me] == I1_SENT || state[me] == I2_SENT) -> ADD(r1[me], generation[me])
  :: takes(0) -> take(0)
  :: takes(1) -> take(1)
  :: takes(2) -> take(2)
  :: takes(3) -> take(3)
  :: takes(4) -> take(4)
#if TRIES > 5
  :: takes(5) -> take(5)
#endif
#if TRIES > 6
  :: takes(6) -> take(6)
#endif
  :: key[me] != NONE && !mine && !HAS(fromResponder, key[me]) &&
     (!HOLD || HAS(fromInitiator, key[me])) -> d_step {
       ADD(fromResponder, key[me]);
       if :: HAS(begun[peer], key[me]) :: else -> early = true fi
     }

  /* Either, under the keys that it has. */
  :: key[me] != NONE && !heard[me] && HAS((mine -> fromResponder : fromInitiator), key[me]) -> d_step {
       heard[me] = true; due[me] = false
     }
  :: key[me] != NONE && (OWN_CLOSE -> HAS(closes[peer], key[me]) : closes[peer]) -> d_step { forget() }
  od
}

/* Time passes when nothing else can happen, for both alike: so both may begin anew in the same moment. */
proctype Clock() {
end:
  do
  :: timeout && (waits(0) || waits(1)) && !due[0] && !due[1] -> d_step { due[0] = waits(0); due[1] = waits(1) }
  od
}

init { atomic { run Side(0); run Side(1); run Clock() } }

#define joined (key[0] != NONE && key[0] == key[1] && heard[0] && heard[1] && state[0] == IDLE && state[1] == IDLE)
#define differs (key[0] != NONE && key[0] == key[1] && spi[0] != spi[1])

ltl nonce { [] !twice }                 /* no key is begun twice by a side */
ltl inbound { [] !early }               /* nobody sends under a key that the other has never installed */
ltl agree { [] !differs }               /* with the same key go the same SPIs */
ltl safe { [] (!twice && !early && !differs) }  /* these three in one search */
ltl settles { <> [] joined }            /* in the end both have the same key, and each has heard the other under it */
