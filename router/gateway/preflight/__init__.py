"""What is wrong with a Kubernetes cluster for Motley, before or after the chart is installed.

Behind ``motley check --kubernetes``. Every finding is one line with its remedy. Start with
``run.py``; each other module looks at one thing: what the gateway may do, whether what is to be
installed can be, whether pools have nodes, what keeps pods from getting ready.
"""
