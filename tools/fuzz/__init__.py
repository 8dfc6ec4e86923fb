"""Random programs from the op registry, run compiled and by the reference: ``make fuzz``.

catalogue   what can be drawn: every op of the registry, every public function
drawing     a program from a seed
case        a program with what it is fed, ready to run again
check       both devices on a case, and what differs
noise       how exact a result can be
shrink      a smaller case that fails in the same way
script      a case as a program to paste
worker      a process that checks one program after another
__main__    starts workers, survives their crashes, reports
"""
