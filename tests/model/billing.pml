/*
 * The protocol of billing as a model, for Spin: who may bill, what one batch does, and all that may go wrong meanwhile.
 *
 * Two billers, the daemon and built-in billing, take the lease, plan, and charge batch by batch. They are interleaved
 * statement by statement, so each of them may be paused anywhere and for any time. Beside them live the server, which
 * may break connections, finish or abort a transaction whose client is gone, and be replaced by a replica that lacks the
 * last transactions; the clock; customers who top up; and the host, which changes an instance.
 *
 * A database is modelled by what is committed, and by one slot for every open transaction: what it is going to write
 * and what it locks. Nobody sees a slot (READ COMMITTED); COMMIT moves it over in one step; who needs a lock waits for it.
 *
 *   Safety        no hour is charged twice; no watermark passes an hour that is neither charged nor a segment that is due;
 *                 balance = opening + top-ups - charges; nothing is committed under a lease that another biller took over.
 *   Completeness  nobody waits for ever (Spin's invalid end states); and when all has come to rest, wherever it stopped,
 *                 one run of one biller charges everything that is due: `judge`.
 *
 * A comment like "fence in batch.sql" names the statement, or the function, that a step stands for.
 *
 * Not modelled: amounts and prices (an hour costs 1), wallets that fall short, two workers of one run (their batches
 * share no wallet; a transaction that lives on while its batch is tried again is modelled), damage done by hand.
 *
 * Each design that -D names leaves one thing out, or does it in the tempting way:
 *
 *   NO_FENCE          no batch looks at the lease
 *   FENCE_BEFORE      the lease is looked at before the transaction of a batch
 *   FENCE_NOT_HELD    it is looked at inside, and a takeover does not wait
 *   NO_NONCE          a lease is known by its token alone
 *   NO_LOCK           wallets are not locked before anything is read
 *   NO_KEY            no unique key over the start of a charge
 *   NO_COMPARE        a watermark is set, whatever it was
 *   REMEMBERED        a batch charges what the plan saw
 *   ABSOLUTE_BALANCE  a batch writes the balance that the plan saw, less the charges
 *   DEBIT_APART       charges are committed first, the debit after them
 *   WATERMARK_FIRST   the watermark is committed first, the charges after it
 *   WATERMARK_LAST    the charges are committed first, the watermark after them
 *
 * MONEY leaves out the rule about leases, to show what holds without them.
 */

#ifndef HOURS
#define HOURS 2      /* how many hours pass */
#endif
#ifndef LEASES
#define LEASES 3     /* how often the lease is taken before all comes to rest */
#endif
#ifndef FAULTS
#define FAULTS 2     /* crashes, broken connections and lost answers to COMMIT, before all comes to rest */
#endif
#ifndef FAILOVERS
#define FAILOVERS 1  /* 0 or 1 */
#endif

#define OPENING 5
#define WALLETS 2    /* each with an instance; each a batch */
#define DAEMON 0
#define BUILT_IN 1
#define SLOTS 4      /* slot b is biller b's transaction; slot b + 2 is one that it has lost sight of */
#define NOBODY 9

#define HOURS_BETWEEN(first, last) (((1 << (last)) - 1) & ~((1 << (first)) - 1))
#define COUNT(set) (((set) & 1) + (((set) >> 1) & 1) + (((set) >> 2) & 1))
#define NAME(b) ((b) % 2 == DAEMON -> daemon : built_in)
mtype = { daemon, built_in };

/* What is committed. */
byte token, nonce;            /* billing_leases; nonce 0: nobody's */
bit expired = 1;
byte watermark[WALLETS];      /* vps_instances: every hour before it is accounted for */
byte charged[WALLETS];        /* vps_billing_cycles, as a set of hours */
byte starts[WALLETS];         /* its unique key: the first hours of the charges */
byte balance[WALLETS] = OPENING;  /* wallets */
bit topped_up;                /* payment_transactions: the host's entry for wallet 0 */
byte segment_from, segment_until;  /* billing_usage_segments: a segment of instance 0 that the host closed */
bit segment_due;

/* What a replica has of it, at the moment after which it gets no more. */
bit has_replica, failed_over;
byte replica_token, replica_nonce;
bit replica_expired;
byte replica_watermark[WALLETS], replica_charged[WALLETS], replica_starts[WALLETS], replica_balance[WALLETS];
bit replica_topped_up;
byte replica_segment_from, replica_segment_until;
bit replica_segment_due;

/* The open transactions. */
bit open[SLOTS];              /* there is one */
bit shares_lease[SLOTS];      /* holds the lease row FOR KEY SHARE */
byte under_nonce[SLOTS];      /* the lease of which its biller believes to bill under it */
byte target[SLOTS];           /* the wallet of its batch */
bit inserted[SLOTS];          /* its charges are written: others see no row, and wait at the unique key */
bit moved[SLOTS];             /* the row of its instance, or of the segment, is locked */
byte hours[SLOTS], started[SLOTS], moves_to[SLOTS];
bit settles[SLOTS];           /* it charges the segment */
byte holder_of[WALLETS] = NOBODY;  /* which slot has locked the wallet */
#ifdef ABSOLUTE_BALANCE
byte seen_balance[4], new_balance[SLOTS];
#endif

/* What the billers remember. */
byte my_token[2], my_nonce[2];
bit broken[2];                /* its connection is gone, and it will find out at its next statement */

byte clock, next_nonce = 1, faults, at_rest;
bit quiet;                    /* no faults any more; the daemon makes one last run */

#if defined(DEBIT_APART) || defined(WATERMARK_FIRST) || defined(WATERMARK_LAST)
#define APART
#endif

#define MAY_FAIL (!quiet && faults < FAULTS)
#ifdef NO_NONCE
#define STILL_MINE (token == my_token[b])
#else
#define STILL_MINE (token == my_token[b] && nonce == my_nonce[b])
#endif
#ifdef FENCE_NOT_HELD
#define CAN_CHANGE_LEASE 1
#else  /* a change of its key waits for those who share it */
#define CAN_CHANGE_LEASE (!(shares_lease[0] || shares_lease[1] || shares_lease[2] || shares_lease[3]))
#endif
#define WAITS_AT_KEY(s) (inserted[s] && s != b && target[s] == org && (started[s] & started[b]))
#define WAITS_AT_ROW(s) (moved[s] && s != b && target[s] == org)
#define FREE_OF(waits) (!(waits(0) || waits(1) || waits(2) || waits(3)))

inline end_transaction(s) {  /* locks are gone, and what was not committed is */
    if
    :: holder_of[0] == s -> holder_of[0] = NOBODY
    :: else
    fi;
    if
    :: holder_of[1] == s -> holder_of[1] = NOBODY
    :: else
    fi;
    open[s] = 0; shares_lease[s] = 0; under_nonce[s] = 0; target[s] = 0; inserted[s] = 0; moved[s] = 0;
    hours[s] = 0; started[s] = 0; moves_to[s] = 0; settles[s] = 0;
#ifdef ABSOLUTE_BALANCE
    new_balance[s] = 0
#endif
}

inline assert_books(w) {
    assert(balance[w] == OPENING + (w == 0 -> topped_up : 0) - COUNT(charged[w]))
}

inline assert_nothing_lost(w) {
    assert((HOURS_BETWEEN(0, watermark[w]) & ~charged[w] &
            ~((w == 0 && segment_due) -> HOURS_BETWEEN(segment_from, segment_until) : 0)) == 0)
}

inline commit(s) {
#ifndef MONEY
    assert(under_nonce[s] == nonce);  /* the lease is still the one it bills under */
#endif
    assert((charged[target[s]] & hours[s]) == 0);  /* no hour twice */
    charged[target[s]] = charged[target[s]] | hours[s];
    starts[target[s]] = starts[target[s]] | started[s];
#ifdef ABSOLUTE_BALANCE
    balance[target[s]] = new_balance[s];
#else
#ifndef DEBIT_APART
    balance[target[s]] = balance[target[s]] - COUNT(hours[s]);
#endif
#endif
    if
    :: moves_to[s] -> watermark[target[s]] = moves_to[s]
    :: else
    fi;
    if
    :: settles[s] -> segment_due = 0
    :: else
    fi;
#ifndef APART  /* a design of several transactions may be judged at rest only */
    assert_books(target[s]);
    assert_nothing_lost(target[s]);
#endif
    end_transaction(s)
}

/* All is charged, once, and the books agree, after a run as of `as_of` with nothing in its way. */
inline judge() {
    assert((HOURS_BETWEEN(0, as_of) & ~charged[0]) == 0);
    assert((HOURS_BETWEEN(0, as_of) & ~charged[1]) == 0);
    assert_books(0);
    assert_books(1);
    assert(watermark[0] == as_of && watermark[1] == as_of && !segment_due)
}

/* The three ways in which a statement of a transaction does not get its answer. */
#define CRASHES \
    atomic { MAY_FAIL -> faults++; printf("%e: crashes\n", NAME(b)); end_transaction(b); broken[b] = 0; my_token[b] = 0; my_nonce[b] = 0; goto idle }
#define FINDS_CONNECTION_GONE \
    atomic { broken[b] -> broken[b] = 0; printf("%e: its connection is gone; the batch begins again\n", NAME(b)); goto again }
#define GIVES_UP_ATTEMPT \
    end_transaction(b); tries++; goto again

proctype Biller(byte b) {
    byte as_of, todo, org, from, tries;
#ifdef REMEMBERED
    byte planned_from[WALLETS];
#endif
#ifdef APART
    byte later;
#endif

idle:
    atomic {
        my_token[b] = 0; my_nonce[b] = 0; as_of = 0; todo = 0; org = 0; from = 0; tries = 0;
#ifdef REMEMBERED
        planned_from[0] = 0; planned_from[1] = 0;
#endif
#ifdef ABSOLUTE_BALANCE
        seen_balance[2 * b] = 0; seen_balance[2 * b + 1] = 0;
#endif
#ifdef APART
        later = 0;
#endif
    }
    if
    :: atomic {  /* acquire_lease in lease.sql, try_acquire in lease.py: one statement, one transaction */
        expired && CAN_CHANGE_LEASE && (quiet || next_nonce <= LEASES) ->
        token++; nonce = next_nonce; next_nonce++; expired = 0;
        if
        :: my_token[b] = token; my_nonce[b] = nonce;
           printf("%e: takes the lease, token %d, nonce %d\n", NAME(b), token, nonce)
        :: MAY_FAIL -> faults++;  /* the answer is lost: the lease will expire */
           printf("%e: takes the lease, token %d, and never learns of it\n", NAME(b), token); goto idle
        fi }
    :: atomic { !quiet -> goto rest }
    fi;

    if
    :: atomic {  /* open_run in run_record.py: fence in batch.sql, database_clock and open_run in runs.sql */
        STILL_MINE -> as_of = clock; printf("%e: opens a run as of hour %d\n", NAME(b), as_of) }
    :: atomic { !STILL_MINE -> goto idle }
    :: CRASHES
    fi;
    atomic {  /* plan_batches in runs.sql: it says where to look, and nothing that it saw is charged */
        todo = (watermark[0] < as_of || (segment_due && segment_until <= as_of)) + 2 * (watermark[1] < as_of);
#ifdef REMEMBERED
        planned_from[0] = watermark[0]; planned_from[1] = watermark[1];
#endif
#ifdef ABSOLUTE_BALANCE
        seen_balance[2 * b] = balance[0]; seen_balance[2 * b + 1] = balance[1];
#endif
        printf("%e: plans %d batches\n", NAME(b), COUNT(todo))
    }

next:  /* work in worker.py: one batch after the other */
    atomic {
        tries = 0;
        if
        :: todo == 0 -> goto release
        :: else -> org = (todo & 1 -> 0 : 1)
        fi
    }

again:  /* charge in worker.py: every attempt derives the batch from the rows */
    atomic {
        from = 0;
        if
        :: tries > 2 -> todo = todo & ~(1 << org); goto next
        :: else
        fi
    }
#ifdef FENCE_BEFORE
    if
    :: atomic { STILL_MINE -> printf("%e: looks at the lease: it is still its own\n", NAME(b)) }
    :: atomic { !STILL_MINE -> goto idle }
    fi;
#endif
    if
    :: atomic {  /* fence in batch.sql, charge_batch in batch.py */
#if defined(NO_FENCE) || defined(FENCE_BEFORE)
        open[b] = 1; target[b] = org; under_nonce[b] = my_nonce[b];
        printf("%e: begins the batch of wallet %d\n", NAME(b), org)
#else
        STILL_MINE ->
        open[b] = 1; target[b] = org; under_nonce[b] = my_nonce[b]; shares_lease[b] = 1;
        printf("%e: begins the batch of wallet %d; the lease is its own\n", NAME(b), org)
#endif
        }
#if !defined(NO_FENCE) && !defined(FENCE_BEFORE)
    :: atomic { !STILL_MINE -> printf("%e: is refused: the lease is another one\n", NAME(b)); goto idle }
#endif
    :: CRASHES
    fi;
#ifndef NO_LOCK
    if
    :: atomic {  /* lock_wallets in batch.sql */
        !broken[b] && holder_of[org] == NOBODY -> holder_of[org] = b; printf("%e: locks wallet %d\n", NAME(b), org) }
    :: atomic {  /* lock_timeout, until it has used up its ATTEMPTS in worker.py */
        !quiet && !broken[b] && holder_of[org] != NOBODY ->
        end_transaction(b); todo = todo & ~(1 << org); printf("%e: leaves wallet %d to the next run\n", NAME(b), org);
        goto next }
    :: FINDS_CONNECTION_GONE
    :: CRASHES
    fi;
#endif
    if
    :: atomic {  /* charge in batch.sql, with its parts released and pieces: what it reads */
        !broken[b] ->
#ifdef REMEMBERED
        from = planned_from[org];
#else
        from = watermark[org];
#endif
        if
        :: from < as_of ->
           hours[b] = HOURS_BETWEEN(from, as_of); started[b] = 1 << from; moves_to[b] = as_of
        :: else
        fi;
        if
        :: org == 0 && segment_due && segment_until <= as_of ->
           hours[b] = hours[b] | HOURS_BETWEEN(segment_from, segment_until); started[b] = started[b] | (1 << segment_from);
           settles[b] = 1
        :: else
        fi;
        printf("%e: finds %d hours due\n", NAME(b), COUNT(hours[b]));
        if
        :: hours[b] == 0 -> end_transaction(b); todo = todo & ~(1 << org); goto next
        :: else
        fi
#ifdef WATERMARK_FIRST
        if
        :: moves_to[b] -> watermark[org] = moves_to[b]; moves_to[b] = 0; printf("%e: commits the watermark\n", NAME(b))
        :: else
        fi
#endif
#if defined(NO_LOCK) || defined(WATERMARK_FIRST)
        }
    :: FINDS_CONNECTION_GONE
    :: CRASHES
    fi;
    if
    :: atomic {  /* charge in batch.sql: what it writes; the unique key waits for whom it may have to refuse */
#else
        ;  /* and what it writes: behind the lock there is nobody for whom the unique key would have to wait */
#endif
#ifdef NO_KEY
        !broken[b] -> inserted[b] = 1
#else
        !broken[b] && FREE_OF(WAITS_AT_KEY) ->
        if
        :: starts[org] & started[b] -> printf("%e: is refused by the unique key\n", NAME(b)); GIVES_UP_ATTEMPT
        :: else -> inserted[b] = 1
        fi
#endif
        ; printf("%e: inserts its charges\n", NAME(b)) }
    :: FINDS_CONNECTION_GONE
    :: CRASHES
    fi;
    if
    :: atomic {  /* charge in batch.sql: it compares and moves the watermark, and settles the segment */
        !broken[b] && FREE_OF(WAITS_AT_ROW) ->
#ifndef NO_COMPARE
        if
        :: (moves_to[b] && watermark[org] != from) || (settles[b] && !segment_due) ->
           printf("%e: finds the instance changed meanwhile\n", NAME(b)); GIVES_UP_ATTEMPT
        :: else
        fi;
#endif
        moved[b] = 1; printf("%e: advances the watermark\n", NAME(b))
#ifndef NO_LOCK
        /* charge in batch.sql: it posts; behind the lock nobody can tell it from the step before */
#ifdef ABSOLUTE_BALANCE
        ; new_balance[b] = seen_balance[2 * b + org] - COUNT(hours[b])
#endif
#endif
        }
    :: FINDS_CONNECTION_GONE
    :: CRASHES
    fi;
#ifdef NO_LOCK
    if
    :: atomic {  /* charge in batch.sql: it posts, the first time that it waits for the transaction that has the wallet */
        !broken[b] && holder_of[org] == NOBODY -> holder_of[org] = b }
    :: FINDS_CONNECTION_GONE
    :: CRASHES
    fi;
#endif
    if
    :: atomic {  /* charge_batch in batch.py: COMMIT */
        !broken[b] ->
#ifdef DEBIT_APART
        later = COUNT(hours[b]);
#endif
#ifdef WATERMARK_LAST
        later = moves_to[b]; moves_to[b] = 0;
#endif
        d_step { printf("%e: commits\n", NAME(b)); commit(b) } }
    :: atomic {  /* the server has the COMMIT, and the biller will never know: is_transient in errors.py */
        !broken[b] && MAY_FAIL && !open[b + 2] -> faults++;
        d_step {
            open[b + 2] = 1; shares_lease[b + 2] = shares_lease[b]; under_nonce[b + 2] = under_nonce[b];
            target[b + 2] = target[b]; inserted[b + 2] = 1; moved[b + 2] = 1; hours[b + 2] = hours[b];
            started[b + 2] = started[b]; moves_to[b + 2] = moves_to[b]; settles[b + 2] = settles[b];
#ifdef ABSOLUTE_BALANCE
            new_balance[b + 2] = new_balance[b];
#endif
            end_transaction(b); holder_of[target[b + 2]] = b + 2
        }
        if
        :: printf("%e: sends COMMIT and gets no answer; the batch begins again\n", NAME(b)); goto again
        :: printf("%e: sends COMMIT and crashes\n", NAME(b)); goto idle
        fi }
    :: atomic {  /* a server that was replaced answers still, and what it commits is nowhere */
        broken[b] && failed_over -> broken[b] = 0; printf("%e: commits on a server that is none any more\n", NAME(b)) }
    :: FINDS_CONNECTION_GONE
    :: CRASHES
    fi;
#ifdef DEBIT_APART
    if
    :: atomic { balance[org] = balance[org] - later; later = 0; printf("%e: commits the debit\n", NAME(b)) }
    :: CRASHES
    fi;
#endif
#ifdef WATERMARK_LAST
    if
    :: atomic {
        if
        :: later -> watermark[org] = later; later = 0
        :: else
        fi;
        printf("%e: commits the watermark\n", NAME(b)) }
    :: CRASHES
    fi;
#endif
    atomic { todo = todo & ~(1 << org); goto next }

release:
    if
    :: atomic {  /* release_lease in lease.sql; close_run in run_record.py is behind a fence of its own */
        if
        :: STILL_MINE && CAN_CHANGE_LEASE -> expired = 1; nonce = 0; printf("%e: gives the lease back\n", NAME(b))
        :: else -> printf("%e: leaves without giving a lease back\n", NAME(b))  /* not its own, or lock_timeout */
        fi;
        if
        :: quiet -> judge(); goto done
        :: else -> goto idle
        fi }
    :: CRASHES
    fi;

rest:  /* wherever it stopped: the last run has to bring all of it right */
    atomic {
        at_rest++;
        if
        :: b == DAEMON -> at_rest == 2; quiet = 1; printf("all faults cease; the daemon bills once more\n"); goto idle
        :: else
        fi
    }
done:
    skip
}

/* What goes on around the billers. */
active proctype World() {
    byte s;
end:
    do
    :: atomic { clock < HOURS && !quiet -> clock++; printf("clock: hour %d is over\n", clock - 1) }
    :: atomic {  /* a customer tops wallet 0 up: the balance by a delta, with an entry, behind the lock */
        !topped_up && holder_of[0] == NOBODY -> topped_up = 1; balance[0]++; printf("customer: tops wallet 0 up\n") }
    :: atomic {  /* the host changes instance 0: billing_move_watermark in functions.sql closes the segment so far */
        !quiet && segment_until == 0 && watermark[0] < clock &&
            (moved[0] == 0 || target[0] == 1) && (moved[1] == 0 || target[1] == 1) &&
            (moved[2] == 0 || target[2] == 1) && (moved[3] == 0 || target[3] == 1) ->
        segment_from = watermark[0]; segment_until = clock; segment_due = 1; watermark[0] = clock;
        printf("host: changes instance 0; hours %d to %d become a segment\n", segment_from, segment_until) }
    :: atomic {  /* nobody renewed it in time: its holder is paused or gone */
        !expired -> expired = 1; printf("lease: expires\n") }
    :: atomic {  /* renew_lease in lease.sql, renewed in lease.py */
        expired && nonce && (my_nonce[0] == nonce || my_nonce[1] == nonce) -> expired = 0; printf("lease: is renewed\n") }
    :: atomic {  /* a connection breaks: restart, idle_in_transaction_session_timeout, network */
        open[0] && MAY_FAIL -> faults++; end_transaction(0); broken[0] = 1; printf("server: breaks the daemon's connection\n") }
    :: atomic {
        open[1] && MAY_FAIL -> faults++; end_transaction(1); broken[1] = 1; printf("server: breaks built_in's connection\n") }
    :: atomic {  /* a COMMIT whose client is gone arrives, or does not */
        open[2] -> if
                   :: d_step { printf("server: commits what the daemon lost sight of\n"); commit(2) }
                   :: end_transaction(2); printf("server: aborts what the daemon lost sight of\n")
                   fi }
    :: atomic {
        open[3] -> if
                   :: d_step { printf("server: commits what built_in lost sight of\n"); commit(3) }
                   :: end_transaction(3); printf("server: aborts what built_in lost sight of\n")
                   fi }
#if FAILOVERS > 0
    :: atomic {
        !has_replica && !quiet -> d_step {
        has_replica = 1; replica_token = token; replica_nonce = nonce; replica_expired = expired;
        replica_watermark[0] = watermark[0]; replica_watermark[1] = watermark[1];
        replica_charged[0] = charged[0]; replica_charged[1] = charged[1];
        replica_starts[0] = starts[0]; replica_starts[1] = starts[1];
        replica_balance[0] = balance[0]; replica_balance[1] = balance[1]; replica_topped_up = topped_up;
        replica_segment_from = segment_from; replica_segment_until = segment_until; replica_segment_due = segment_due;
        printf("replica: gets nothing any more from here on\n") } }
    :: atomic {  /* the replica is promoted: what was committed since is gone, and every connection with it */
        has_replica && !failed_over && !quiet -> d_step {
        failed_over = 1; token = replica_token; nonce = replica_nonce; expired = replica_expired;
        watermark[0] = replica_watermark[0]; watermark[1] = replica_watermark[1];
        charged[0] = replica_charged[0]; charged[1] = replica_charged[1];
        starts[0] = replica_starts[0]; starts[1] = replica_starts[1];
        balance[0] = replica_balance[0]; balance[1] = replica_balance[1]; topped_up = replica_topped_up;
        segment_from = replica_segment_from; segment_until = replica_segment_until; segment_due = replica_segment_due;
        replica_token = 0; replica_nonce = 0; replica_expired = 0; replica_watermark[0] = 0; replica_watermark[1] = 0;
        replica_charged[0] = 0; replica_charged[1] = 0; replica_starts[0] = 0; replica_starts[1] = 0;
        replica_balance[0] = 0; replica_balance[1] = 0; replica_topped_up = 0;
        replica_segment_from = 0; replica_segment_until = 0; replica_segment_due = 0;
        if
        :: open[0] -> broken[0] = 1
        :: else
        fi;
        if
        :: open[1] -> broken[1] = 1
        :: else
        fi;
        end_transaction(0); end_transaction(1); end_transaction(2); end_transaction(3);
        printf("replica: is promoted; token %d, nonce %d\n", token, nonce) } }
#endif
    od
}

init {
    atomic { run Biller(DAEMON); run Biller(BUILT_IN) }
}
