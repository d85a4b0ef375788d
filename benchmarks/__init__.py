"""This agent beside Prefect's own, through the same scenarios in one go.

    environments   a Python environment for each of the two agents
    servers        the sandbox's API and AWS, each in a process of its own
    contender      an agent as a child process: started, watched, stopped, accounted
    scenarios      what is measured, as a table
    measuring      one agent through one scenario -> a Measurement
    floor          the calls that no agent can do without, as a script of their own
    speed          how fast the machine runs Python now
    single         several agents that wait for runs that are started by hand
    wire           counts the bytes between an agent and the Prefect API
    tls            makes that API one over HTTPS
    figures        what must be reached beside what was measured      (pure)
    report, plot   the tables and the picture of docs/benchmarks.md   (pure)
    flame          docs/images/flame.svg; stacks is its pure part
    dashboard      docs/grafana-dashboard.svg; scrapes and panels are its pure parts
    scaling        100,000 runs over 10 agents on a simulated clock

`python -m benchmarks` runs it. This package is not installed with the plugin, and
its process stays small: what it imports would count as the agents' memory, because
Linux lets a child's peak begin at its parent's.
"""
