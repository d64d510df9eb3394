/* Rekeys of an association between two honest gateways, one after another (IDENTITY.md, section 6).

   Either side may begin each of them, or both at once. The network is a set of messages that only grows: an UPDATE, an
   acknowledgment or a sealed packet can come late, again, out of order, or not until everything else is over.

   Keys are numbered. Key 0 is the base exchange's; the number of a rekey is the SEQ that both of its UPDATEs have, as
   long as the rules hold. What a key really is, is the pair of DH values that it was made from, and an SPI for each
   direction; both are compared, so that two sides that count alike do not pass for two sides that agree.

   rule      section            what it says                                                            breaks
   FIRST     6 order (1)        inbound is installed before the peer's UPDATE is acknowledged           lossless
   STRICT    6 order (2)        outbound waits for its own UPDATE's ACK or a packet under new inbound   lossless
   KEEP      6 order            old inbound stays longer than the peer can take to change               lossless
   ERASE     6 order            old outbound is erased at the switch, so that nothing leads back to it  lossless
   ONE       6 "Both at once"   two UPDATEs that cross are each other's answer, and make one key        agree, lossless
   FRESH     6 "SPI"            an SPI is never one in use here                                         lossless
   NAMED     6 (RFC 7401 6.12)  an acknowledgment counts for the UPDATE that it names                   lossless
   ORDER     6 (RFC 7401 6.12)  an UPDATE with an older SEQ than the last one is no request             agree, lossless
   AGAIN     6 "guarantees"     the last UPDATE again gets the same answer, and installs nothing        nonce
   NEW_DH    6 "soft limits"    each rekey has a new DH value                                           nonce
   ACK       6 "Three UPDATEs"  every UPDATE is acknowledged, or neither side would change first        ends

   Not here: what ends an association (handshake.pml), which packet counts as newest for a path, KEM parts, SPI_TAKEN,
   workers, and what time limits lead to: that a peer is never slower than KEEP's sixty seconds is taken for granted. */

#ifndef FIRST
#define FIRST 1
#endif
#ifndef STRICT
#define STRICT 1
#endif
#ifndef KEEP
#define KEEP 1
#endif
#ifndef ERASE
#define ERASE 1
#endif
#ifndef ONE
#define ONE 1
#endif
#ifndef FRESH
#define FRESH 1
#endif
#ifndef NAMED
#define NAMED 1
#endif
#ifndef ORDER
#define ORDER 1
#endif
#ifndef AGAIN
#define AGAIN 1
#endif
#ifndef NEW_DH
#define NEW_DH 1
#endif
#ifndef ACK
#define ACK 1
#endif

#ifndef REKEYS
#define REKEYS 3
#endif
#define KEYS (REKEYS + 1)

#define HAS(set, n) (((set) >> (n)) & 1)
#define ADD(set, n) set = (set) | (1 << (n))
#define AT(side, n) ((side) * KEYS + (n))
#define peer (1 - me)

/* The network. */
byte said[2];           /* the last UPDATE of a side; the earlier ones are there too */
byte acks[2];           /* acknowledged UPDATEs of a side: a set */
byte sealed[2];         /* keys that a side has sent under: a set */
byte dh[2 * KEYS], spi[2 * KEYS];       /* in a side's UPDATE n: its DH value, and the SPI for packets to it */

/* What a side knows. */
byte took[2];           /* the last UPDATE of the peer that it has taken */
byte made[2];           /* its own last one, which it has made, and perhaps not yet said */
byte inbound[2] = 1;    /* keys that it can open: a set */
byte outbound[2];       /* the key that it seals with */
byte own[2 * KEYS], his[2 * KEYS];      /* DH values that it made key n from */
byte to[2 * KEYS];      /* SPI that it puts on packets under key n */

bool twice;             /* a side has begun a key that it had begun before */

/* An SPI is taken by a key that this side can still open. */
#define uses(n, value) (HAS(inbound[me], n) && spi[AT(me, n)] == (value))
#define isFree(value) (!FRESH || !(uses(0, value) || uses(1, value) || uses(2, value) || uses(3, value)))

/* What goes into an own UPDATE is drawn once, and is the same when the UPDATE is sent again. */
inline make(n) {
  made[me] = n;
  if
  :: dh[AT(me, n)] = n
  :: !NEW_DH -> dh[AT(me, n)] = dh[AT(me, n - 1)]
  fi;
  if
  :: isFree(0) -> spi[AT(me, n)] = 0
  :: isFree(1) -> spi[AT(me, n)] = 1
  :: isFree(2) -> spi[AT(me, n)] = 2
  :: isFree(3) -> spi[AT(me, n)] = 3
  fi
}

#define same(n, other) ((other) < (n) && own[AT(me, n)] == own[AT(me, other)] && his[AT(me, n)] == his[AT(me, other)])
#define evicts(n, other) ((other) != (n) && HAS(inbound[me], other) && spi[AT(me, other)] == spi[AT(me, n)])
#define without(n, other) (evicts(n, other) -> 1 << (other) : 0)

/* The peer's UPDATE number `from` and this side's number n make key n; otherwise than by their own fault, they are the
   same number. Both directions begin with it, whichever is used first. */
inline install(n, from) {
  d_step {
    if
    :: HAS(inbound[me], n) -> twice = true
    :: else
    fi;
    own[AT(me, n)] = dh[AT(me, n)]; his[AT(me, n)] = dh[AT(peer, from)]; to[AT(me, n)] = spi[AT(peer, from)];
    if
    :: same(n, 0) || same(n, 1) || same(n, 2) || same(n, 3) -> twice = true
    :: else
    fi;
    inbound[me] = inbound[me] & ~(without(n, 0) | without(n, 1) | without(n, 2) | without(n, 3));
    if
    :: KEEP -> ADD(inbound[me], n)
    :: else -> inbound[me] = 1 << (n)
    fi
  }
}

inline answer(n, from) { d_step { said[me] = made[me]; ADD(acks[peer], from); took[me] = n } }

/* Takes the peer's UPDATE number `from` as its part of key n. */
inline take(n, from) {
  if
  :: made[me] < n -> make(n)
  :: made[me] >= n && ONE
  /* An answer beside its own request, with another DH value. */
  :: made[me] >= n && !ONE -> dh[AT(me, n)] = n + KEYS
  fi;
  if
  :: FIRST -> install(n, from); answer(n, from)
  :: !FIRST -> answer(n, from); install(n, from)
  fi
}

#define acked(n) (ACK && (NAMED -> HAS(acks[me], n) : acks[me]))
#define opened(n) (HAS(inbound[me], n) && HAS(sealed[peer], n))
#define changes(n) (outbound[me] < (n) && HAS(inbound[me], n) && (acked(n) || opened(n) || !STRICT))
#define falls(n) (!ERASE && outbound[me] > (n) && opened(n))
/* Sixty seconds after this side has changed, and no peer takes that long. */
#define expires(n) (HAS(inbound[me], n) && outbound[me] > (n) && outbound[peer] > (n))

inline change(n) { d_step { outbound[me] = n; ADD(sealed[me], n) } }
inline expire(n) { inbound[me] = inbound[me] & ~(1 << (n)) }

proctype Side(byte me) {
  byte next;            /* an inline's argument is text, so what it changes must not stand in it */
end:
  do
  /* A limit is reached: a rekey begins where none is under way. The outbound may still be the last one's or older. */
  :: made[me] == took[me] && made[me] < REKEYS -> atomic {
       next = made[me] + 1; make(next); said[me] = next; next = 0
     }
  :: said[peer] > took[me] -> next = took[me] + 1; take(next, next); next = 0
  :: !AGAIN && took[me] > 0 -> next = took[me]; take(next, next); next = 0
  :: !ORDER && took[me] > 0 && made[me] == took[me] && took[me] < REKEYS ->
       next = took[me] + 1; take(next, next - 1); next = 0
  :: changes(1) -> change(1)
  :: changes(2) -> change(2)
  :: changes(3) -> change(3)
  :: falls(0) -> change(0)
  :: falls(1) -> change(1)
  :: falls(2) -> change(2)
  :: expires(0) -> expire(0)
  :: expires(1) -> expire(1)
  :: expires(2) -> expire(2)
  od
}

init { atomic { sealed[0] = 1; sealed[1] = 1; spi[AT(1, 0)] = 1; to[AT(0, 0)] = 1; run Side(0); run Side(1) } }

/* What side a seals under key n, side b opens. */
#define fits(a, b, n) \
  (own[AT(a, n)] == his[AT(b, n)] && his[AT(a, n)] == own[AT(b, n)] && to[AT(a, n)] == spi[AT(b, n)])
#define opens(a, b) (HAS(inbound[b], outbound[a]) && fits(a, b, outbound[a]))
#define differs(n) (HAS(inbound[0], n) && HAS(inbound[1], n) && !(fits(0, 1, n) && fits(1, 0, n)))

ltl lossless { [] (opens(0, 1) && opens(1, 0)) }        /* whatever is sealed now, the other can open */
ltl agree { [] !(differs(1) || differs(2) || differs(3)) }      /* one number, one key, and the same SPIs */
ltl nonce { [] !twice }                                 /* no key is begun twice by a side */
ltl safe { [] (!twice && !(differs(1) || differs(2) || differs(3)) && opens(0, 1) && opens(1, 0)) } /* all of these */
ltl ends { <> (outbound[0] == REKEYS && outbound[1] == REKEYS) }        /* every rekey comes to its end */
