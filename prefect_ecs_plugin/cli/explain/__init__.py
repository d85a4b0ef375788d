"""`prefect agent ecs explain`: what happened to a flow run, on one page.

command     the options
reading     asks the Prefect API and AWS, in at most six calls of AWS
seen        what was read, frozen, and what could not be read
timeline    what was read -> phases that follow each other (pure)
causes      what was read -> why the run ended, or what it waits for (pure)
account     what was read -> all that the page tells, without secrets (pure)
page        that, as text for people or as JSON (pure)
"""
