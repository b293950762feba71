"""A dream in the browser that follows the keys.

controls.py    which keys, buttons and sliders an env's actions get
commands.py    what a page may ask for, checked
session.py     one viewer's dream: steps, save points, recording; knows no network
viewer.py      joins a session to a websocket: pace, latest frame wins, bounds
server.py      who may connect, what is served
page/          the page itself: one HTML file with its style and script
"""
